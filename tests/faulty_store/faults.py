"""What can go wrong with a request, and which requests it befalls."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.faulty_store.requests import Request


class Kind(StrEnum):
    """The kinds of faults. Those before METADATA_LOST pass when the request is tried again."""

    SLOW_DOWN = "503 SlowDown"
    INTERNAL_ERROR = "500 InternalError"
    RESET = "the connection breaks before the request is carried out"
    ANSWER_LOST = "the request is carried out, and then the connection breaks"
    STALLED = "nothing is carried out, and nothing is answered until the proxy closes"
    TRUNCATED = "half of the body, with the Content-Length of the whole"
    EMPTIED = "nothing of the body, with the Content-Length of the whole"
    FLIPPED = "one bit of the body is another than in the store"
    TRICKLE = "the body comes byte by byte, without end in sight"
    WRONG_ETAG = "the answer's ETag header is of something else"
    METADATA_LOST = "the answer has no x-amz-meta-* headers, as if the store kept none"
    ACCESS_DENIED = "403 AccessDenied"
    NO_SUCH_KEY = "404 NoSuchKey"
    CLOCK_SKEWED = "403 RequestTimeTooSkewed"
    EXPIRED_TOKEN = "400 ExpiredToken"
    CHECKSUM_REFUSED = "501 NotImplemented to x-amz-checksum-* headers and aws-chunked bodies"
    CONDITION_REFUSED = "501 NotImplemented to a write with If-None-Match or If-Match"
    CONDITION_FAILED = "412 PreconditionFailed to a write with If-None-Match or If-Match"

    @property
    def refusal(self) -> tuple[int, str] | None:
        """The HTTP status and S3 code of the answer, if the fault is an answer."""
        status, _, rest = self.value.partition(" ")
        return (int(status), rest.split(" ")[0]) if status.isdigit() else None

    def can_befall(self, request: Request) -> bool:
        """Whether the fault makes a difference to such a request."""
        names = {name.lower() for name in request.headers}
        if self in (Kind.TRUNCATED, Kind.EMPTIED, Kind.FLIPPED, Kind.TRICKLE):
            return request.method == "GET"
        if self is Kind.CHECKSUM_REFUSED:
            checksums = {name for name in names if name.startswith(("x-amz-checksum-", "x-amz-sdk-checksum-"))}
            chunked = "aws-chunked" in request.headers.get("Content-Encoding", "")
            return chunked or bool(checksums - {"x-amz-checksum-mode"})  # that one only asks, and is ignored
        if self in (Kind.CONDITION_REFUSED, Kind.CONDITION_FAILED):
            return request.method in ("PUT", "POST") and bool(names & {"if-match", "if-none-match"})
        return True


@dataclass(frozen=True)
class Fault:
    """One kind of fault and the requests that it befalls.

    :param kind: what goes wrong.
    :param when: the requests it may befall; by default every one.
    :param rate: the share of those that it does befall, chosen by the proxy's seed.
    :param skip: how many of those pass first.
    :param times: how often it strikes in all; None: for ever.
    """

    kind: Kind
    when: Callable[[Request], bool] = lambda _: True
    rate: float = 1.0
    skip: int = 0
    times: int | None = None


class Fate:
    """Decides for each request which fault it meets.

    The choice hangs on the seed, on what the request asks for, and on how often that was asked, not on the order in
    which threads happen to ask.
    """

    def __init__(self, faults: Sequence[Fault], seed: int) -> None:
        self._faults = faults
        self._seed = seed
        self._asked: Counter[str] = Counter()
        self._candidates = [itertools.count() for _ in faults]
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Kind | None:
        with self._lock:
            self._asked[request.identity] += 1
            for number, fault in enumerate(self._faults):
                if not fault.kind.can_befall(request) or not fault.when(request):
                    continue
                chance = f"{self._seed} {number} {request.identity} {self._asked[request.identity]}"
                if random.Random(chance).random() >= fault.rate:
                    continue
                position = next(self._candidates[number]) - fault.skip
                if position >= 0 and (fault.times is None or position < fault.times):
                    return fault.kind
        return None
