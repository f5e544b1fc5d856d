"""Which bucket and key a URI names, and which keys can be written as they are."""

from __future__ import annotations

import re
from typing import NamedTuple

from clip_operator.storage.objects import KeyNotSupported, StorageError
from clip_operator.storage.uri import display, scheme_of, what_is_wrong_with

AZURE_SCHEMES = ("az", "abfs", "abfss")

# Where accounts are: in the public cloud, in China's and the US government's, and in Fabric. A host that anybody could
# own is not sent the environment's credentials.
_HOST = re.compile(
    r"(?P<account>[a-z0-9-]{3,63})(\.(dfs|blob)\."
    r"(?P<domain>core\.windows\.net|core\.chinacloudapi\.cn|core\.usgovcloudapi\.net|fabric\.microsoft\.com))?",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Bucket(NamedTuple):
    """A bucket, or a container of an Azure account.

    :param scheme: ``gs`` or ``az``.
    :param name: of the bucket or container.
    :param account: the Azure account that the URI names; empty where that is the environment's matter.
    :param domain: what follows the account in its host name; empty for the public cloud, or the environment's endpoint.
    """

    scheme: str
    name: str
    account: str = ""
    domain: str = ""


def bucket_of(uri: str) -> Bucket:
    """Return the bucket that a URI names: ``gs://bucket/…``, ``az://container/…``, ``abfss://container@account.dfs.…/…``.

    :raises StorageError: it names none.
    """
    if problem := what_is_wrong_with(uri):
        raise StorageError(f"{display(uri)}: {problem}")
    scheme, authority = scheme_of(uri), uri.partition("://")[2].partition("/")[0]
    if scheme not in AZURE_SCHEMES:
        return Bucket(scheme, authority)
    container, at, host = authority.partition("@")
    if not at and "." not in authority:
        return Bucket("az", authority)
    match = _HOST.fullmatch(host)
    if match is None or not container:
        raise StorageError(
            f"{display(uri)} names no container of a storage account that is known here; write az://container/name, or "
            "abfss://container@account.dfs.core.windows.net/name"
        )
    return Bucket("az", container, match["account"].lower(), (match["domain"] or "").lower())


def split(uri: str) -> tuple[Bucket, str]:
    """Return the bucket and the key of an object.

    :raises KeyNotSupported: obstore would read and write another key than this one, or none.
    """
    bucket, key = bucket_of(uri), uri.partition("://")[2].partition("/")[2]
    if not is_supported(key):
        raise KeyNotSupported(
            f"{display(uri)} cannot be read or written: a key must have more between two slashes than nothing, '.' or "
            "'..', must neither begin nor end with a slash, and must hold no control characters. Give the object "
            f"another name, or reach it by a driver of fsspec: install that and set FSSPEC_{bucket.scheme.upper()}={{}}"
        )
    return bucket, key


def is_supported(key: str) -> bool:
    """Whether obstore reads and writes an object under exactly this key."""
    return {"", ".", ".."}.isdisjoint(key.split("/")) and _CONTROL.search(key) is None


def split_prefix(prefix: str) -> tuple[Bucket, str, str]:
    """Return the bucket that a prefix of URIs is in, the key of its innermost folder, and the whole prefix of keys."""
    bucket, key = bucket_of(prefix), prefix.partition("://")[2].partition("/")[2]
    folder = key.rpartition("/")[0]
    if folder:
        split(f"{prefix.partition('://')[0]}://{prefix.partition('://')[2].partition('/')[0]}/{folder}")
    return bucket, folder, key


def uri_of(prefix: str, key: str) -> str:
    """Return the URI of a key in the bucket that a URI names, spelled as that one is."""
    scheme, slashes, rest = prefix.partition("://")
    return f"{scheme}{slashes}{rest.partition('/')[0]}/{key}"
