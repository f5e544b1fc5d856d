"""Web hosts that have stopped answering, so that a million rows do not wait for each of them in turn."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from time import monotonic

from clip_operator.errors import Reason, RowError

log = logging.getLogger(__name__)

# Both must be so: a restart of the host, in which many images fail at once, costs no more rows than those.
_FAILED_IN_A_ROW = 16
_SECONDS_WITHOUT_ANSWER = 30.0

_SECONDS_BETWEEN_LOOKS = 15.0
_MOST_HOSTS = 1024  # a data set may name any number of subdomains


@dataclass
class _Silence:
    since: float
    failed: int = 0
    look_again_at: float | None = None
    """None as long as the host is not given up."""


class DeadHosts:
    """A circuit breaker for each host. One instance serves many threads.

    A host is given up when 16 images in a row failed for want of an answer, and none was answered for 30 seconds. From
    then on its images fail at once, but for one every 15 seconds, which is tried as any other: once a host answers, all
    of its images are fetched again.
    """

    def __init__(self) -> None:
        self._silent: dict[str, _Silence] = {}
        self._lock = threading.Lock()

    def check(self, host: str) -> None:
        """Raise :class:`RowError` if a host is given up and it is not the time to look again."""
        now = monotonic()
        with self._lock:
            silence = self._silent.get(host)
            if silence is None or silence.look_again_at is None:
                return
            if now >= silence.look_again_at:
                silence.look_again_at = now + _SECONDS_BETWEEN_LOOKS  # the others wait for what this one finds
                return
        raise RowError(
            Reason.IMAGE_UNAVAILABLE,
            f"the host {host} has stopped answering; it was not asked for this image, but is asked for another one "
            f"every {_SECONDS_BETWEEN_LOOKS:g} seconds",
        )

    def failed(self, host: str) -> None:
        """Say that an image could not be had because its host did not answer."""
        now = monotonic()
        with self._lock:
            if host not in self._silent and len(self._silent) >= _MOST_HOSTS:
                del self._silent[next(iter(self._silent))]
            silence = self._silent.setdefault(host, _Silence(since=now))
            silence.failed += 1
            if silence.look_again_at is not None:
                return  # given up already
            if silence.failed < _FAILED_IN_A_ROW or now - silence.since < _SECONDS_WITHOUT_ANSWER:
                return
            silence.look_again_at = now + _SECONDS_BETWEEN_LOOKS
        log.warning(
            "The host %s answered none of the last %d images; until it answers again, its images fail at once",
            host,
            silence.failed,
        )

    def answered(self, host: str) -> None:
        """Say that a host answered, whatever it said."""
        with self._lock:
            self._silent.pop(host, None)
