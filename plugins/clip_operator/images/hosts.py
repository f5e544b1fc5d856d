"""Which web hosts a data set may name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from clip_operator.errors import RequestError

_DEFAULT_PORTS = {"http": 80, "https": 443}

_RULE = re.compile(
    r"(?P<wildcard>\*\.)?"
    r"(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])\.?"  # a name or IPv4 address, or an IPv6 address
    r"(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True)
class HostRule:
    """One entry of the allowed hosts.

    :param name: the host, or the parent domain of a wildcard, in lower case.
    :param wildcard: every subdomain of ``name`` is meant, and not ``name`` itself.
    :param port: the only port allowed; None for the scheme's own.
    """

    name: str
    wildcard: bool
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"example.org"``, ``"*.example.org"`` or either with ``":8080"``; raise :class:`RequestError`."""
        match = _RULE.fullmatch(text.strip().lower())
        if match is None:
            raise RequestError(
                f"'{text}' is not a host that can be allowed; write example.org, *.example.org or example.org:8080, "
                "without http://, and international names in their xn-- form"
            )
        port = match["port"]
        return cls(name=match["name"], wildcard=match["wildcard"] is not None, port=int(port) if port else None)

    def allows(self, scheme: str, host: str, port: int | None) -> bool:
        """Say whether a connection of ``scheme`` to ``host`` and ``port`` (None: the scheme's own) is meant."""
        own_port = _DEFAULT_PORTS[scheme]
        if (port or own_port) != (self.port or own_port):
            return False
        name = host.lower().removesuffix(".")
        return name.endswith("." + self.name) if self.wildcard else name == self.name
