"""A reference found in a data set row → decoded RGB pixels, or a named error."""

from clip_operator.images.buckets import bucket_of
from clip_operator.images.loader import ImageLoader
from clip_operator.images.location import ImageLocation
from clip_operator.images.policy import ImagePolicy
from clip_operator.images.versions import ImageVersions, identity_of

__all__ = ["ImageLoader", "ImageLocation", "ImagePolicy", "ImageVersions", "bucket_of", "identity_of"]
