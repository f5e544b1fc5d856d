"""The pod's log, read a piece at a time: each line once, whichever worker reads it and however often that is asked."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.cncf.kubernetes.callbacks import ExecutionMode

from clip_operator.operators.execution.log_lines import parse_log_line
from clip_operator.operators.execution.pods.cluster import TROUBLES, Cluster
from clip_operator.operators.execution.pods.reading import describe_trouble

if TYPE_CHECKING:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from kubernetes.client import models as k8s

log = logging.getLogger(__name__)

# What is asked for again of what has been read, in seconds: of the kubelet's clock a second is the smallest part, and
# two workers' clocks differ.
_SECONDS_AGAIN = 3
_SECONDS_AGAIN_ELSEWHERE = 60
_LONGEST_LINE = 64 << 10
_PIECE = 64 << 10
# A line as the kubelet gives it out: its time, to the nanosecond in as many digits as that takes, and what was written.
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d) ?(.*)", re.DOTALL)


Stamp = tuple[int, int]  # seconds since the epoch, and nanoseconds


@dataclass
class Position:
    """How far a container's log has been read.

    :param second: the time of the last line, in seconds since the epoch, of the node's clock; and
    :param nanosecond: its fraction.
    :param lines: how many lines of that very time were read.
    :param at: when it was read, in seconds since the epoch, of the reader's clock; None if it never was.
    """

    second: int = 0
    nanosecond: int = 0
    lines: int = 0
    at: float | None = None


class PodLog:
    """The logs of the containers of a pod that are to be the task's.

    :param operator: how they are to be shown, and to which callbacks they are told.
    :param kept: how far an earlier reader came, as :meth:`keep` returned it.
    """

    def __init__(
        self, operator: KubernetesPodOperator, cluster: Cluster, kept: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self._operator = operator
        self._cluster = cluster
        self._positions = {name: Position(**position) for name, position in (kept or {}).items()}
        self._again = dict.fromkeys(self._positions, _SECONDS_AGAIN_ELSEWHERE)
        self._unread = False

    def keep(self) -> dict[str, dict[str, Any]]:
        """Return how far the logs have been read, as JSON has it."""
        return {name: asdict(position) for name, position in self._positions.items()}

    def read(self, pod: k8s.V1Pod) -> bool:
        """Log what is new in the logs of the pod's containers; return whether they could be read."""
        unread = sum(not self._read(pod, container) for container in self._containers(pod))
        self._unread = bool(unread)
        return not unread

    def _containers(self, pod: k8s.V1Pod) -> Iterator[str]:
        """Yield the containers that have written something and are to be logged."""
        asked = [(self._operator.init_container_logs, pod.status.init_container_statuses)]
        if self._operator.get_logs:
            asked.append((self._operator.container_logs, pod.status.container_statuses))
        for wanted, statuses in asked:
            for status in statuses or ():
                if status.state and not status.state.waiting and _is_wanted(status.name, wanted):
                    yield status.name

    def _read(self, pod: k8s.V1Pod, container: str) -> bool:
        position = self._positions.setdefault(container, Position())
        now, since = time.time(), None
        if position.at is not None:
            since = max(0, int(now - position.at)) + self._again.get(container, _SECONDS_AGAIN)
        try:
            with closing(self._cluster.log_since(pod, container, since)) as response:
                for stamp, line in _new(_lines(response.stream(_PIECE)), position):
                    self._tell(pod, container, stamp, line)
        except TROUBLES as error:
            if getattr(error, "status", None) in (400, 404):  # it has written nothing yet, or is gone
                return True
            if not self._unread:
                log.warning("The pod's log cannot be read now: %s. The pod works on", describe_trouble(error))
            self._unread = True
            return False
        position.at = now
        self._again.pop(container, None)
        return True

    def _tell(self, pod: k8s.V1Pod, container: str, stamp: Stamp, line: str) -> None:
        operator = self._operator
        for callback in operator.callbacks:
            callback.progress_callback(
                line=line,
                client=self._cluster.client,
                mode=ExecutionMode.SYNC,
                container_name=container,
                timestamp=pendulum.from_timestamp(stamp[0] + stamp[1] / 1e9),
                pod=pod,
            )
        level, text = parse_log_line(line)
        if operator.log_formatter is not None:
            text = operator.log_formatter(container, line)
        elif operator.container_name_log_prefix_enabled:
            text = f"[{container}] {text}"
        log.log(level, "%s", text)


def _is_wanted(name: str, wanted: Iterable[str] | str | bool | None) -> bool:
    if isinstance(wanted, bool) or wanted is None:
        return bool(wanted)
    return name == wanted if isinstance(wanted, str) else name in wanted


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of what comes in pieces, each at most as long as one is told."""
    rest = b""
    for piece in pieces:
        *finished, last = piece.split(b"\n")
        for line in finished:
            yield _text(rest + line)
            rest = b""
        rest = (rest + last)[: _LONGEST_LINE + 1]
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    return line[:_LONGEST_LINE].decode(errors="replace") + ("…" if len(line) > _LONGEST_LINE else "")


def _new(lines: Iterable[str], position: Position) -> Iterator[tuple[Stamp, str]]:
    """Yield the lines that were not read before, with their times, and move the position behind each."""
    known, left = (position.second, position.nanosecond), position.lines
    for line in lines:
        if (match := _LINE.fullmatch(line)) is None:
            continue  # of a line that was cut by what was asked for, or by the rotation of the log
        stamp = _stamp(match)
        if stamp < known:
            continue
        if stamp == known and left:
            left -= 1
            continue
        same = stamp == (position.second, position.nanosecond)
        position.second, position.nanosecond = stamp
        position.lines = position.lines + 1 if same else 1
        yield stamp, match[4]


def _stamp(match: re.Match[str]) -> Stamp:
    moment = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    return int(moment.timestamp()), int((match[2] or "").ljust(9, "0")[:9])
