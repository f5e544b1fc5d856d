"""One request as the proxy saw it, and what became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    """A request of the client's.

    :param method: ``GET``, ``HEAD``, ``PUT``, ``POST`` or ``DELETE``.
    :param target: path and query as they were sent, quoted.
    :param headers: all its headers; names are looked up in any case.
    :param body: its body.
    :param status: the HTTP status the client was answered with; None while it waits, or where it got no answer.
    :param fault: the kind of fault it met, or None.
    """

    method: str
    target: str
    headers: Message = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    status: int | None = None
    fault: str | None = None

    @property
    def path(self) -> str:
        """``/bucket/key``, unquoted."""
        return unquote(urlsplit(self.target).path)

    @property
    def bucket(self) -> str:
        return self.path[1:].partition("/")[0]

    @property
    def key(self) -> str:
        """The object's key; empty for requests about the bucket, such as lists."""
        return self.path[1:].partition("/")[2]

    @property
    def query(self) -> dict[str, str]:
        """The query's fields: ``{"partNumber": "1", "uploadId": "…"}``; a field without a value is empty."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query, True).items()}

    @property
    def access_key(self) -> str:
        """The access key that signed it."""
        found = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
        return found.group(1) if found else ""

    @property
    def identity(self) -> str:
        """What it asks for, the same in every run of a test: without the bucket, upload ids and signatures."""
        query = {name: value for name, value in sorted(self.query.items()) if name != "uploadId"}
        return f"{self.method} {self.key} {query} {self.headers.get('Range', '')}"
