"""Objects in a store: below the root, and in the buckets that the job was given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clip_operator.errors import Reason, RowError
from clip_operator.images.buckets import BUCKET_STORES, bucket_of, parse_bucket
from clip_operator.images.location import ImageLocation, shown
from clip_operator.images.paths import resolve
from clip_operator.storage import canonical, join, scheme_of

_MAX_KEY_BYTES = 1024  # in S3, GCS and Azure; they answer a longer one with an error that is not "not found"


class Objects:
    """The objects that a job may read.

    Everything below the root; where the root is ``s3://``, ``gs://`` or ``az://``, everything in its bucket; everything
    in the given ones.

    :param root: the URI of a bucket or prefix; None if the root is a local folder.
    :param buckets: more buckets, as in ``name``, ``s3://name``, ``gs://name`` or ``az://name``.
    :param prefixes: of all this only what is below one of these; empty for all of it.
    """

    def __init__(self, root: str | None, buckets: Iterable[str], prefixes: Sequence[str] = ()) -> None:
        self.root = None if root is None else canonical(root).rstrip("/")
        """The root in one spelling."""
        self._prefixes = tuple(prefixes)
        self._open = [f"{parse_bucket(bucket)}/" for bucket in buckets]
        if self.root is not None:
            self._open.append(f"{self.root}/")
            if scheme_of(self.root) in BUCKET_STORES:
                self._open.append("/".join(self.root.split("/", 3)[:3]) + "/")

    def relative(self, reference: str) -> ImageLocation:
        """Resolve a relative path against the root, without I/O; raise :class:`RowError`."""
        assert self.root is not None, "the local root resolves it"
        return self.locate(join(self.root, resolve(reference, reference)))

    def locate(self, reference: str) -> ImageLocation:
        """Return the location that an object's URI names, without I/O, or raise :class:`RowError`.

        Keys are taken as they are, without percent-decoding.
        """
        uri = canonical(reference)
        key = uri.partition("://")[2].partition("/")[2]
        if not f"{uri}/".startswith(tuple(self._open)):
            raise RowError(Reason.IMAGE_FORBIDDEN, self._why_not(uri, reference))
        # Some servers resolve dots in a request's path, some of them also between backslashes, and then read something
        # else than the URI seems to say, or refuse the whole request.
        if not {".", ".."}.isdisjoint(key.replace("\\", "/").split("/")):
            raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(reference)} has '.' or '..' in its key")
        if self._prefixes and not uri.startswith(self._prefixes):
            raise RowError(
                Reason.IMAGE_FORBIDDEN, f"{shown(reference)} is not where an administrator lets jobs read images"
            )
        if not key or key.endswith("/"):
            raise RowError(Reason.IMAGE_NOT_FOUND, f"{shown(reference)} names a folder, not an object")
        if len(key.encode()) > _MAX_KEY_BYTES:
            raise RowError(
                Reason.IMAGE_NOT_FOUND,
                f"{shown(reference)} cannot exist: its key is longer than {_MAX_KEY_BYTES:,} bytes",
            )
        return ImageLocation(uri)

    def _why_not(self, uri: str, reference: str) -> str:
        scheme = scheme_of(uri)
        if scheme in BUCKET_STORES:
            bucket = bucket_of(uri)
            if bucket is None:
                return f"{shown(reference)} does not name a bucket as in {scheme}://bucket/key"
            return (
                f"{shown(reference)}: the bucket {bucket} is not open to this job; list it in image_buckets to read it"
            )
        if self.root is not None and scheme == scheme_of(self.root):
            return f"{shown(reference)} is outside the image root"
        return f"{shown(reference)}: images are not read from {scheme}:// here"
