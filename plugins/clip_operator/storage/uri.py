"""URIs as text: what they name, their parts, how they are joined, and which of them are one."""

from __future__ import annotations

import re
from urllib.parse import unquote

from clip_operator.redaction import holds_secret, without_secrets

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_ALIASES = {"s3a": "s3", "gcs": "gs"}
_FILE = re.compile(r"file://(localhost)?(?=/)", re.IGNORECASE)
_ONE_SLASH = re.compile(r"(s3a?|gcs|gs|abfss?|az|https?|file):/(?!/)", re.IGNORECASE)
_HOSTED = {"s3": "bucket", "gs": "bucket", "abfs": "container", "abfss": "container", "az": "container"}
_DATASET = re.compile(r"hf:(?!//)")


def scheme_of(uri: str) -> str:
    """Return the scheme in one spelling: ``"s3"``, also for ``s3a://``, ``"http"``, … A plain path is ``"file"``."""
    match = _SCHEME.match(uri)
    return _ALIASES.get(scheme := match.group(1).lower(), scheme) if match else "file"


def dataset_name(uri: str) -> str | None:
    """Return ``NAME[:config][:split]`` of a Hugging Face data set, ``hf:NAME…``; None for what is no such thing.

    A URI that begins with ``hf://`` is an object in the hub's own storage.
    """
    match = _DATASET.match(uri)
    return None if match is None else uri[match.end() :]


def canonical(uri: str) -> str:
    """Return one spelling for URIs that name the same object as far as their text alone can tell.

    The scheme is in lower case and without aliases; a local file is a path, without ``./`` and doubled slashes.
    """
    scheme = scheme_of(uri)
    if scheme != "file":
        return f"{scheme}://{uri.partition('://')[2]}"
    if dataset_name(uri) is not None:
        return uri
    match = _FILE.match(uri)
    path = uri if match is None else unquote(uri[match.end() :])
    return re.sub(r"(?<![^/])\./|(?<=/)/", "", path)


def folded(uri: str) -> str:
    """Return the canonical URI of an object in a store, with one slash for several, which some stores take for one."""
    scheme, slashes, name = canonical(uri).partition("://")
    return f"{scheme}{slashes}{re.sub('/+', '/', name)}"


def what_is_wrong_with(uri: str) -> str | None:
    """Return why a URI can name nothing, and what to do; None where only a store can tell."""
    if match := _ONE_SLASH.match(uri):
        return f"two slashes follow the scheme, as in {match.group(1)}://{uri[match.end() :]}"
    scheme, (host, slash, path) = scheme_of(uri), uri.partition("://")[2].partition("/")
    if scheme == "file":
        if uri.lower().startswith("file://") and host not in ("", "localhost"):
            return f"a file:// URI names no host; write file:///{host}{slash}{path} for a path"
        return None
    if scheme in _HOSTED and not host:
        return f"a URI of this kind needs a {_HOSTED[scheme]}, as in {scheme}://{_HOSTED[scheme]}/name"
    if scheme == "s3" and "@" in host:
        return "an S3 URI holds no credentials; set aws_conn_id or the AWS_ variables"
    return None


def refused(uri: str) -> str | None:
    """Return why a URI that a person gave is not taken, and what to do; None where it is.

    What people give stands in logs, manifests and the pod's specification, so it must hold no secret.
    """
    if holds_secret(uri):
        return (
            "a URI must not hold a password or a signature, nor a web address a query, which may be one; give the "
            "credentials to the environment or a connection"
        )
    return what_is_wrong_with(uri)


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
    shown = without_secrets(uri)
    if shown == uri and holds_secret(uri):  # spelled so that where it begins and ends cannot be told
        return "…"
    if scheme_of(uri) == "file":
        return shown
    scheme, _, rest = shown.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
