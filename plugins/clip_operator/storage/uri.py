"""URIs as text: their scheme, their parts, and how they are joined."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")


def scheme_of(uri: str) -> str:
    """Return the scheme in lower case: ``"s3"``, ``"http"``, … A plain path is ``"file"``."""
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else "file"


def parent(uri: str) -> str:
    """Return the folder of an object, without a trailing slash: ``s3://b/a/x.jsonl`` → ``s3://b/a``."""
    head, slash, _ = uri.rpartition("/")
    if not slash:
        return "."
    return head or "/"


def name_of(uri: str) -> str:
    """Return what stands after the last slash."""
    return uri.rpartition("/")[2]


def join(root: str, relative: str) -> str:
    """Return ``relative`` below ``root``, as text: neither is looked up and ``..`` is not resolved."""
    return f"{root.rstrip('/')}/{relative.lstrip('/')}" if root.strip("/") else f"{root}{relative}"


def display(uri: str) -> str:
    """Return the URI as it may appear in a log: without user name, password, query or fragment."""
    if scheme_of(uri) == "file":
        return uri
    scheme, _, rest = uri.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
