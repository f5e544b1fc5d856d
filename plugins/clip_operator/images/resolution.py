"""Which addresses a web host's name leads to, asked once and then kept for a minute."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from time import monotonic

from clip_operator.errors import Reason, RowError
from clip_operator.images.addresses import Address, address_of
from clip_operator.images.hosts import AllowedHosts, literal_address
from clip_operator.images.location import shown

_KEPT_SECONDS = 60  # a name server is not asked for every image, and a host that moves is followed
_MOST_NAMES = 1024  # a data set may name any number of subdomains
_SHOWN_ADDRESSES = 3
_MOST_LOOKUPS = 64  # as many as threads that fetch


class Resolver:
    """Finds the addresses that may be connected to. One instance serves many threads.

    The caller connects to the addresses themselves, and not to the name, which by then might lead elsewhere.

    :param allowed: which addresses may be reached.
    """

    def __init__(self, allowed: AllowedHosts) -> None:
        self._allowed = allowed
        self._answers: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._lock = threading.Lock()
        self._lookups = _Lookups()

    def addresses(self, host: str, port: int, url: str, seconds: float) -> list[Address]:
        """Return the addresses of a host that may be reached, in the order in which to try them.

        :param host: a name or an address that a URL may name.
        :param url: for the error.
        :param seconds: how long the name servers may take.
        :raises RowError: ``IMAGE_FORBIDDEN`` if the name leads only to addresses that may not be reached.
        :raises OSError: the name does not resolve.
        """
        literal = literal_address(host)
        if literal is not None:
            return [literal]
        answer = self._answer(host, seconds)
        reachable = [
            address
            for text in answer
            if (address := address_of(text)) is not None and self._allowed.may_be_reached(address, port)
        ]
        if not reachable:
            some = ", ".join(answer[:_SHOWN_ADDRESSES]) + (", …" if len(answer) > _SHOWN_ADDRESSES else "")
            raise RowError(
                Reason.IMAGE_FORBIDDEN,
                f"{shown(url)}: the host leads to {some}, which is no public address; if it is meant, list the "
                "address in image_hosts, too, or its network, as in 10.0.0.0/8",
            )
        return reachable

    def prefer(self, host: str, address: Address) -> None:
        """Put an address that could be reached before those that could not, until the name is asked for again."""
        with self._lock:
            if (known := self._answers.get(host)) is not None:
                expires, answer = known
                self._answers[host] = expires, tuple(sorted(answer, key=lambda text: address_of(text) != address))

    def _answer(self, host: str, seconds: float) -> tuple[str, ...]:
        with self._lock:
            expires, answer = self._answers.get(host, (0.0, ()))
        if monotonic() < expires:
            return answer
        answer = self._lookups.addresses(host, seconds)
        with self._lock:
            self._answers.pop(host, None)
            if len(self._answers) >= _MOST_NAMES:
                del self._answers[next(iter(self._answers))]
            self._answers[host] = monotonic() + _KEPT_SECONDS, answer
        return answer


class _Lookups:
    """Asks the name servers in threads of its own: the system's resolver takes its time, and cannot be told to stop.

    What is being asked already is not asked again beside it, and only so many names are asked for at one time, so that
    threads that wait for servers which do not answer do not pile up.
    """

    def __init__(self) -> None:
        self._pending: dict[str, Future[tuple[str, ...]]] = {}
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(_MOST_LOOKUPS)

    def addresses(self, host: str, seconds: float) -> tuple[str, ...]:
        """Return the addresses that a name leads to.

        :raises OSError: it leads to none; EAI_AGAIN: nobody answered in time.
        """
        until = monotonic() + seconds
        try:
            return self._asked(host, seconds).result(max(0.0, until - monotonic()))
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, "no answer in time") from None

    def _asked(self, host: str, seconds: float) -> Future[tuple[str, ...]]:
        """Return the answer to come, to a question that another thread may have asked.

        :raises TimeoutError: too many questions are open.
        """
        with self._lock:
            if (pending := self._pending.get(host)) is not None:
                return pending
        if not self._free.acquire(timeout=seconds):
            raise TimeoutError
        with self._lock:
            if (pending := self._pending.get(host)) is not None:
                self._free.release()
                return pending
            asked = self._pending[host] = Future[tuple[str, ...]]()
        try:
            threading.Thread(target=self._ask, args=(host, asked), name="clip-name", daemon=True).start()
        except RuntimeError:  # no room for a thread just now
            self._settle(host)
            raise TimeoutError from None
        return asked

    def _ask(self, host: str, asked: Future[tuple[str, ...]]) -> None:
        found: tuple[str, ...] = ()
        failure: Exception | None = None
        try:
            found = _addresses(host)
        except Exception as error:
            failure = error
        self._settle(host)  # before anybody hears of it, who might ask again
        if failure is None:
            asked.set_result(found)
        else:
            asked.set_exception(failure)

    def _settle(self, host: str) -> None:
        with self._lock:
            del self._pending[host]
        self._free.release()


def _addresses(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label that no name server takes
        raise socket.gaierror(socket.EAI_NONAME, "not a name that can be resolved") from None
    return tuple(dict.fromkeys(str(where[0]) for *_, where in found))
