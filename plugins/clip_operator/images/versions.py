"""Which version of an image a place holds, without fetching it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from clip_operator.images.buckets import bucket_of
from clip_operator.images.listed_objects import ListedObjects, look_at
from clip_operator.images.loader import ImageLoader
from clip_operator.images.location import ImageLocation
from clip_operator.storage import ObjectInfo, Storage, scheme_of


def identity_of(info: ObjectInfo) -> str | None:
    """Return what stands for one version of one object, or None where its store does not tell versions apart."""
    return f"{info.uri}\0{info.size}\0{info.etag}" if info.etag else None


class ImageVersions:
    """Looks up the identities of images: equal only if the bytes are equal, as far as the store can tell.

    That is the digest of bytes that came with the row; URI, size and version of an object or a local file. An image on
    the web has none. Objects are looked up by listing them where that pays
    (:class:`ListedObjects`); what was looked up holds for ten minutes.

    :param storage: where images are, other than on the web.
    :param images: says what would be read.
    """

    def __init__(self, storage: Storage, images: ImageLoader) -> None:
        self._storage = storage
        self._images = images
        self._listed: dict[str, ListedObjects] = {}

    def of(self, locations: Sequence[ImageLocation | None]) -> list[str | None]:
        """Return each image's identity; None for those that have none, are not there, or may not be looked at.

        :param locations: as :meth:`ImageLoader.locate` gives them; None for a row without an image.
        :raises StorageError: the storage fails in a way that other images would meet, too.
        """
        uris = [None if location is None else self._images.readable_uri(location) for location in locations]
        found = self._find({uri for uri in uris if uri is not None})
        return [
            location.key if location is not None and location.inline else found.get(uri) if uri is not None else None
            for location, uri in zip(locations, uris, strict=True)
        ]

    def _find(self, uris: set[str]) -> dict[str, str | None]:
        buckets: dict[str, list[str]] = defaultdict(list)
        infos: list[ObjectInfo] = []
        others: list[str] = []
        for uri in uris:
            bucket = bucket_of(uri) if scheme_of(uri) == "s3" else None
            if bucket is not None:
                buckets[bucket].append(uri)
            elif scheme_of(uri) == "file":
                infos += look_at(self._storage, [uri]).values()  # takes less time than to hand it to a thread
            else:
                others.append(uri)
        for bucket, objects in buckets.items():
            infos += self._listed.setdefault(bucket, ListedObjects(self._storage)).find(objects).values()
        infos += look_at(self._storage, others).values()
        return {info.uri: identity_of(info) for info in infos}
