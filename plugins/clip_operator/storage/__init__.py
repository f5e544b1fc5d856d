"""Bytes at a URI: local files, S3, Google's and Azure's stores, and whatever else an fsspec driver reaches."""

from clip_operator.storage.cloud.access import CloudAccess
from clip_operator.storage.objects import (
    AccessDenied,
    BucketNotFound,
    CredentialsError,
    KeyNotSupported,
    ObjectChanged,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
    Unchanged,
)
from clip_operator.storage.s3.access import S3Access
from clip_operator.storage.s3.handover import S3Settings, keys_of
from clip_operator.storage.storage import Storage
from clip_operator.storage.uri import (
    canonical,
    dataset_name,
    display,
    join,
    name_of,
    parent,
    refused,
    scheme_of,
    what_is_wrong_with,
)
from clip_operator.storage.writing import ObjectWriter

__all__ = [
    "AccessDenied",
    "BucketNotFound",
    "CloudAccess",
    "CredentialsError",
    "KeyNotSupported",
    "ObjectChanged",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectTooLarge",
    "ObjectWriter",
    "S3Access",
    "S3Settings",
    "Storage",
    "StorageError",
    "Unchanged",
    "canonical",
    "dataset_name",
    "display",
    "join",
    "keys_of",
    "name_of",
    "parent",
    "refused",
    "scheme_of",
    "what_is_wrong_with",
]
