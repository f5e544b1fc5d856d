"""Signatures: whoever has not the administrator's key can write beside an output, but not what the package believes.

Off unless the environment holds a key. HMAC-SHA256, over what an object is, where it stands, and its bytes: a manifest
that is copied to another place, or to that of a plan, is signed no more. A signature stands within what it signs, so
that both are written at once: as the last field of a JSON object, which readers that know of none pass over; else
behind it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import Literal

from clip_operator.storage import canonical, scheme_of

VARIABLE = "CLIP_OPERATOR_SIGNING_KEY"
"""The environment variable that holds the key."""

Kind = Literal["manifest", "pack of scores", "plan", "resume point"]

SIGNATURE_BYTES = 100
"""So many more an object has with its signature."""

_SIGNATURE = re.compile(rb'(?:,"signature":"|\n)hmac-sha256:([0-9a-f]{64})(?:"(\}\n?))?\Z')


def signed(data: bytes, kind: Kind, uri: str) -> bytes:
    """Return an object with its signature; as it is where there is no key.

    :param data: a JSON object, or bytes that do not begin with a brace.
    :param uri: where it is to stand.
    """
    if not (key := _key()):
        return data
    signature = b"hmac-sha256:" + _digest(key, data, kind, uri)
    if not data.startswith(b"{"):
        return b"%b\n%b" % (data, signature)
    end = data.rindex(b"}")
    return b'%b,"signature":"%b"%b' % (data[:end], signature, data[end:])


def verified(data: bytes, kind: Kind, uri: str) -> bytes | None:
    """Return an object without its signature; None if there is a key, and no signature by it: not one of ours.

    :param uri: where it was found.
    """
    match = _SIGNATURE.search(data, max(0, len(data) - SIGNATURE_BYTES))
    content = data if match is None else data[: match.start()] + (match[2] or b"")
    if not (key := _key()):
        return content
    if match is not None and hmac.compare_digest(_digest(key, content, kind, uri), match[1]):
        return content
    return None


def environment_without_key() -> dict[str, str]:
    """Return this process's environment for one that decodes what others wrote, and is not trusted with the key."""
    return {name: value for name, value in os.environ.items() if name != VARIABLE}


def _key() -> bytes:
    return os.environ.get(VARIABLE, "").strip().encode()


def _digest(key: bytes, data: bytes, kind: Kind, uri: str) -> bytes:
    place = canonical(uri)
    if scheme_of(uri) == "file":
        place = str(Path(place).absolute())
    told = b"\0".join([b"clip-operator 1", kind.encode(), place.encode(errors="surrogateescape"), data])
    return hmac.new(key, told, hashlib.sha256).hexdigest().encode()
