"""Which web hosts a data set may name, and which addresses those may lead to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from clip_operator.errors import RequestError
from clip_operator.images.addresses import Address, Network, address_of, is_public

DEFAULT_PORTS = {"http": 80, "https": 443}

_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ENTRY = re.compile(
    r"(?P<wildcard>\*\.)?"
    r"(?:(?P<name>[a-z0-9_.-]+?)\.?|\[(?P<bracketed>[0-9a-f:.]+)\]|(?P<bare>[0-9a-f:.]+)(?=/))"
    r"(?P<prefix>/[0-9]{1,3})?"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
# The last label of 127.1, 0x7f000001, 0177.0.0.1 and 2130706433, which resolvers take for addresses; no public domain
# ends in a number.
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


@dataclass(frozen=True)
class _AllowedName:
    """A host name, or with ``wildcard`` every subdomain of it; ``port`` None is the scheme's own."""

    name: str
    wildcard: bool
    port: int | None


@dataclass(frozen=True)
class _AllowedNetwork:
    """An address or a range of them; ``port`` None is the scheme's own in a URL, any behind a name."""

    network: Network
    port: int | None


class AllowedHosts:
    """The hosts that a job allows, as names, addresses and networks.

    :param entries: ``example.org``; ``*.example.org``, which is every subdomain and not the domain itself;
        ``10.1.2.3`` or ``[fd00::1]``; ``10.0.0.0/8`` or ``fd00::/8``; each also with ``:8080``.
    :raises RequestError: an entry that is none of these.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        parsed = [_parsed(entry) for entry in entries]
        self._names = [entry for entry in parsed if isinstance(entry, _AllowedName)]
        self._networks = [entry for entry in parsed if isinstance(entry, _AllowedNetwork)]

    def may_be_named(self, scheme: str, host: str, port: int | None) -> bool:
        """Say whether a URL may name a host.

        A name says nothing about the address that it leads to: see :meth:`may_be_reached`.

        :param host: as a URL has it: IPv6 addresses in brackets. Only a name of letters, digits, hyphens and
            underscores, or an address in its usual form, is ever allowed.
        :param port: None for the scheme's own.
        """
        own_port = DEFAULT_PORTS[scheme]
        asked = port or own_port
        address = literal_address(host)
        if address is not None:
            return any(address in allowed.network and asked == (allowed.port or own_port) for allowed in self._networks)
        name = host.lower().removesuffix(".")
        return _is_name(name) and any(
            (name.endswith("." + allowed.name) if allowed.wildcard else name == allowed.name)
            and asked == (allowed.port or own_port)
            for allowed in self._names
        )

    def cover(self, entry: str) -> bool:
        """Say whether another job's entry allows nothing beyond these.

        :raises RequestError: it is no entry.
        """
        asked = _parsed(entry)
        if isinstance(asked, _AllowedName):
            return any(_covers(allowed, asked) for allowed in self._names)
        return any(
            asked.port == allowed.port
            and asked.network.version == allowed.network.version
            and allowed.network.supernet_of(asked.network)  # type: ignore[arg-type] # of one version
            for allowed in self._networks
        )

    def may_be_reached(self, address: Address, port: int) -> bool:
        """Say whether an allowed name may lead to this address: a public one, or one that is allowed itself."""
        return is_public(address) or any(
            address in allowed.network and allowed.port in (None, port) for allowed in self._networks
        )


def literal_address(host: str) -> Address | None:
    """Return the address that stands in place of a name in a URL; None if it is a name."""
    if host.startswith("["):
        return address_of(host[1:-1])
    return address_of(host.removesuffix("."))


def _parsed(text: str) -> _AllowedName | _AllowedNetwork:
    match = _ENTRY.fullmatch(text.strip().lower())
    if match is None or (match["port"] and not 1 <= int(match["port"]) <= 65535):
        raise _not_a_host(text)
    port = int(match["port"]) if match["port"] else None
    spelled = match["name"] or match["bracketed"] or match["bare"]
    address = address_of(spelled)
    if address is None:
        if match["bracketed"] or match["prefix"] or not _is_name(spelled):
            raise _not_a_host(text)
        return _AllowedName(spelled, match["wildcard"] is not None, port)
    if match["wildcard"]:
        raise _not_a_host(text)
    try:
        return _AllowedNetwork(ip_network(f"{address}{match['prefix'] or ''}"), port)
    except ValueError as error:
        raise RequestError(f"'{text}' is not a network that can be allowed: {error}") from None


def _covers(allowed: _AllowedName, asked: _AllowedName) -> bool:
    same = allowed.name == asked.name and allowed.wildcard == asked.wildcard
    return allowed.port == asked.port and (same or (allowed.wildcard and asked.name.endswith("." + allowed.name)))


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and _ENDS_IN_A_NUMBER.fullmatch(text) is None


def _not_a_host(text: str) -> RequestError:
    return RequestError(
        f"'{text}' is not a host that can be allowed; write example.org, *.example.org or example.org:8080, without "
        "http://, and international names in their xn-- form; or an address or a network, as in 10.1.2.3, [fd00::1] or "
        "10.0.0.0/8"
    )
