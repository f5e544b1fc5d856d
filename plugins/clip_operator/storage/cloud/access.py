"""How Google Cloud Storage and Azure are reached: what a user may say of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CloudAccess:
    """How Google Cloud Storage and Azure are reached. Credentials and endpoints are the environment's.

    :param timeout_seconds: how long a store may be silent before a request counts as failed and is tried again. Also
        what every request has on top of the time that its bytes may take.
    :param least_bytes_per_second: the speed below which a request counts as failed: a range of 4 MiB, say, has the
        time of its bytes and those seconds.
    :param max_tries: how often a request is made before it fails.
    :param retry_seconds: after this time from the first of them on no further try is begun.
    """

    timeout_seconds: float = 20
    least_bytes_per_second: int = 16 << 10
    max_tries: int = 8
    retry_seconds: float = 180
