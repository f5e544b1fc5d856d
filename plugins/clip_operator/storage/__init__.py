"""Bytes at a URI: local files, S3, and whatever else an installed fsspec driver reaches."""

from clip_operator.storage.objects import (
    AccessDenied,
    BucketNotFound,
    CredentialsError,
    ObjectChanged,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
    Unchanged,
)
from clip_operator.storage.s3.access import S3Access
from clip_operator.storage.storage import Storage
from clip_operator.storage.uri import (
    canonical,
    dataset_name,
    display,
    join,
    name_of,
    parent,
    scheme_of,
    what_is_wrong_with,
)
from clip_operator.storage.writing import ObjectWriter

__all__ = [
    "AccessDenied",
    "BucketNotFound",
    "CredentialsError",
    "ObjectChanged",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectTooLarge",
    "ObjectWriter",
    "S3Access",
    "Storage",
    "StorageError",
    "Unchanged",
    "canonical",
    "dataset_name",
    "display",
    "join",
    "name_of",
    "parent",
    "scheme_of",
    "what_is_wrong_with",
]
