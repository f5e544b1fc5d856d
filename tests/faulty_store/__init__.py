"""An HTTP proxy that stands between boto3 and a real S3 server and fails as it is told to.

.. code-block:: python

    faults = [
        Fault(Kind.SLOW_DOWN, times=3),                                    # the first three requests, whatever they are
        Fault(Kind.ANSWER_LOST, when=lambda r: r.method == "PUT", skip=1, times=1),        # the second PUT only
        Fault(Kind.EXPIRED_TOKEN, when=lambda r: r.access_key == "old"),   # every request that this key has signed
        Fault(Kind.RESET, rate=0.2),                                       # one request in five of the rest, seeded
    ]
    with faulty_store(store.endpoint_url, faults, seed=7, after=kill_the_job) as proxy:
        storage = Storage(S3Access(session, proxy.url, timeout_seconds=1))
        storage.read("s3://bucket/key")
        assert [(r.method, r.key, r.status, r.fault) for r in proxy.requests] == ...

Requests go on as they came, with the client's own Host header, so that signatures hold: the client signs for
``proxy.url`` and needs nothing but that URL. The first fault of the list that applies to a request decides its fate. A
callable in place of the list is given each request and returns a :class:`Kind` or None.
"""

from tests.faulty_store.faults import Fault, Kind
from tests.faulty_store.proxy import FaultyStore, faulty_store
from tests.faulty_store.requests import Request

__all__ = ["Fault", "FaultyStore", "Kind", "Request", "faulty_store"]
