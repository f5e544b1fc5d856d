"""How slow a body may be, on a clock that the test moves."""

from __future__ import annotations

from io import SEEK_END, BytesIO
from types import SimpleNamespace

import pytest
from botocore.exceptions import ResponseStreamingError

from clip_operator.machine.connections import Deadline
from clip_operator.storage.s3.pace import MINIMUM_BYTES_PER_SECOND, PacedAnswer, PacedBody

CONTENT = bytes(range(256)) * 1024


class Clock:
    seconds = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("clip_operator.storage.s3.pace.time", SimpleNamespace(monotonic=lambda: clock.seconds))
    return clock


class Arriving(BytesIO):
    """A connection on which so many bytes arrive in each second."""

    def __init__(self, clock: Clock, per_second: int) -> None:
        super().__init__(CONTENT)
        self._clock, self._per_second = clock, per_second

    def read1(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(min(self._per_second, len(CONTENT) if size is None or size < 0 else size))
        self._clock.seconds += len(chunk) / self._per_second
        return chunk


@pytest.mark.parametrize("amount", [None, 1000, 10 * len(CONTENT)])
def test_an_answer_that_keeps_the_speed_is_read_whole(clock: Clock, amount: int | None) -> None:
    answer = PacedAnswer(Arriving(clock, MINIMUM_BYTES_PER_SECOND), Deadline(1), grace_seconds=1)
    parts = [answer.read(amount)]
    while amount is not None and len(parts[-1]) == amount:
        parts.append(answer.read(amount))
    assert b"".join(parts) == CONTENT


def test_an_answer_that_is_too_slow_is_given_up_after_its_grace(clock: Clock) -> None:
    with pytest.raises(ResponseStreamingError, match=r"only 21 bytes in 21 seconds"):
        PacedAnswer(Arriving(clock, 1), Deadline(20), grace_seconds=20).read()


def test_a_slice_of_a_file_is_what_lies_between_its_ends() -> None:
    body = PacedBody(BytesIO(CONTENT), 100, 50, grace_seconds=1)
    assert body.read(20) == CONTENT[100:120]
    assert body.tell() == 20
    assert body.read() == CONTENT[120:150]
    assert body.read(1) == b""
    assert body.seek(-10, SEEK_END) == 40
    assert body.read() == CONTENT[140:150]


def test_a_store_that_takes_a_slice_too_slowly_is_given_up_and_each_try_begins_anew(clock: Clock) -> None:
    body = PacedBody(BytesIO(CONTENT), 0, len(CONTENT), grace_seconds=20)
    clock.seconds += 1000  # the time before the first byte is asked for is none of the store's
    for _ in range(2):
        body.seek(0)
        assert body.read(16) == CONTENT[:16]
        clock.seconds += 21
        with pytest.raises(TimeoutError, match="only 32 bytes in 21 seconds"):
            body.read(16)
