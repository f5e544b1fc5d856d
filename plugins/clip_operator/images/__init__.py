"""A reference found in a data set row → decoded RGB pixels, or a named error."""

from clip_operator.images.buckets import bucket_of
from clip_operator.images.loader import ImageLoader
from clip_operator.images.location import ImageLocation, shown
from clip_operator.images.mending import PathMending
from clip_operator.images.policy import ImagePolicy
from clip_operator.images.thumbnail import THUMBNAIL_PIXELS, thumbnail
from clip_operator.images.versions import ImageVersions, identity_of

__all__ = [
    "THUMBNAIL_PIXELS",
    "ImageLoader",
    "ImageLocation",
    "ImagePolicy",
    "ImageVersions",
    "PathMending",
    "bucket_of",
    "identity_of",
    "shown",
    "thumbnail",
]
