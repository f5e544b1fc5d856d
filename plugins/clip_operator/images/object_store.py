"""Objects in a store: below the root, and in the other buckets that the job's credentials open."""

from __future__ import annotations

import re

from clip_operator.errors import Reason, RowError
from clip_operator.images.location import ImageLocation, shown
from clip_operator.images.paths import resolve
from clip_operator.storage import join, scheme_of

# A data set may name any bucket of these: what is readable there is decided by the permissions of the job's
# credentials. Other drivers put hosts, accounts or local disks into their URIs and are followed only below the root.
_BUCKET_STORES = frozenset({"s3", "gs", "gcs"})

# The naming rule of S3 and GCS, which excludes access-point ARNs: they name other accounts and regions to call.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")

_MAX_KEY_BYTES = 1024  # in S3 and GCS; they answer a longer one with an error that is not "not found"


class StoreRoot:
    """A bucket or prefix that references are resolved against.

    :param uri: as in ``s3://bucket/prefix``.
    """

    def __init__(self, uri: str) -> None:
        self.uri = _canonical(uri).rstrip("/")
        self.bucket_uri = "/".join(self.uri.split("/", 3)[:3])

    def holds(self, uri: str) -> bool:
        """Tell whether an object is in the root's bucket."""
        return uri.startswith(self.bucket_uri + "/")

    def relative(self, reference: str) -> ImageLocation:
        """Resolve a relative path, without I/O; raise :class:`RowError`."""
        return locate_object(join(self.uri, resolve(reference, reference)), self)


def locate_object(reference: str, root: StoreRoot | None) -> ImageLocation:
    """Return the location that an object's URI names, or raise :class:`RowError`.

    Keys are taken as they are, without percent-decoding. Allowed is everything below the root, and any bucket in S3
    and in the root's own kind of store.

    :param root: None if the root is a local folder.
    """
    uri = _canonical(reference)
    below_root = root is not None and uri.startswith(root.uri + "/")
    own_scheme = scheme_of(root.uri) if root is not None else "s3"
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not below_root:
        scheme = scheme_of(uri)
        if scheme not in ("s3", own_scheme):
            raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(reference)}: images are not read from {scheme}:// here")
        if scheme not in _BUCKET_STORES:
            raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(reference)} is outside the image root")
        if _BUCKET.fullmatch(bucket) is None and not (root is not None and root.holds(uri)):
            raise RowError(
                Reason.IMAGE_FORBIDDEN, f"{shown(reference)} does not name a bucket as in {scheme}://bucket/key"
            )
    # Some servers resolve dots in a request's path, and then read something else than the URI seems to say.
    if not {".", ".."}.isdisjoint(key.split("/")):
        raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(reference)} has '.' or '..' in its key")
    if not key or key.endswith("/"):
        raise RowError(Reason.IMAGE_NOT_FOUND, f"{shown(reference)} names a folder, not an object")
    if len(key.encode()) > _MAX_KEY_BYTES:
        raise RowError(
            Reason.IMAGE_NOT_FOUND, f"{shown(reference)} cannot exist: its key is longer than {_MAX_KEY_BYTES:,} bytes"
        )
    return ImageLocation(uri)


def _canonical(uri: str) -> str:
    scheme = scheme_of(uri)
    return f"{'s3' if scheme == 's3a' else scheme}://{uri.partition('://')[2]}"
