"""A pod's log is told line by line, each once and in order, however it is read."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import urllib3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clip_operator.operators.execution.pods import logs
from clip_operator.operators.execution.pods.logs import PodLog

BILLION = 1_000_000_000
START = 1_800_000_000 * BILLION

# Nanoseconds between two lines: at the same moment, within a second, and far apart.
STEPS = st.lists(st.sampled_from([0, 1, 999, BILLION // 3, BILLION, 40 * BILLION]), min_size=1, max_size=30)


def stamp(nanoseconds: int, zone: str) -> str:
    """Return a time as a kubelet writes it, in its own zone."""
    seconds, fraction = divmod(nanoseconds + {"Z": 0, "+02:00": 7200 * BILLION}[zone], BILLION)
    digits = f"{fraction:09d}".rstrip("0") if fraction % 2 else f"{fraction:09d}"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{f'.{digits}' if digits else ''}{zone}"


class Kubelet:
    """Has the log of one container, and gives out what is asked of it by its own clock."""

    def __init__(self, times: list[int], zone: str) -> None:
        self.lines = [(time, f"{stamp(time, zone)} line {number}\n".encode()) for number, time in enumerate(times)]
        self.now = 0

    def log_since(self, pod: object, container: str, seconds: int | None) -> urllib3.HTTPResponse:
        since = 0 if seconds is None else self.now - seconds * BILLION
        body = b"".join(line for time, line in self.lines if since <= time <= self.now)
        return urllib3.HTTPResponse(io.BytesIO(body), preload_content=False)


OPERATOR: Any = SimpleNamespace(
    init_container_logs=None,
    get_logs=True,
    container_logs="base",
    callbacks=[],
    log_formatter=None,
    container_name_log_prefix_enabled=False,
)
STATE = SimpleNamespace(waiting=None)
POD: Any = SimpleNamespace(
    status=SimpleNamespace(init_container_statuses=None, container_statuses=[SimpleNamespace(name="base", state=STATE)])
)


# Where a whole second is left out of what is asked for again, and where another worker's clock is behind.
@example(steps=[BILLION // 3], reads=[BILLION // 7] * 3, ahead=0, zone="Z", elsewhere=set(), of_other=0)
@example(steps=[0, 20 * BILLION], reads=[BILLION, 25 * BILLION], ahead=0, zone="Z", elsewhere={1}, of_other=-50)
@settings(max_examples=300, deadline=None)
@given(
    steps=STEPS,
    reads=st.lists(st.sampled_from([0, BILLION // 7, BILLION, 25 * BILLION]), max_size=20),
    ahead=st.integers(-10_000, 10_000),
    zone=st.sampled_from(["Z", "+02:00"]),
    elsewhere=st.sets(st.integers(0, 19)),
    of_other=st.integers(-50, 50),
)
def test_each_line_is_told_once_and_in_order(
    steps: list[int], reads: list[int], ahead: int, zone: str, elsewhere: set[int], of_other: int
) -> None:
    """Whatever the clocks of the node and of the worker say, and when another worker goes on."""
    times = [START + sum(steps[: index + 1]) for index in range(len(steps))]
    kubelet = Kubelet(times, zone)
    told: list[str] = []
    moments = [START + sum(reads[: index + 1]) for index in range(len(reads))]
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logs.log.addHandler(handler)
    try:
        reader = PodLog(OPERATOR, kubelet)  # type: ignore[arg-type]
        for number, kubelet.now in enumerate([*moments, max([*moments, times[-1]])]):
            if number in elsewhere:
                reader = PodLog(OPERATOR, kubelet, json.loads(json.dumps(reader.keep())))  # type: ignore[arg-type]
            clock = kubelet.now / BILLION + ahead + (of_other if elsewhere and number >= min(elsewhere) else 0)
            with patch("time.time", lambda clock=clock: clock):
                assert reader.read(POD)
    finally:
        logs.log.removeHandler(handler)
    assert told == [f"line {number}" for number in range(len(times))]
