"""What a request lets the rows of its data set make the job read."""

from __future__ import annotations

from clip_operator.images import ImageLoader, ImagePolicy, bucket_of
from clip_operator.inputs import default_image_root
from clip_operator.request import EvaluationRequest
from clip_operator.storage import Storage


def image_root(request: EvaluationRequest) -> str:
    """Return the folder that relative image paths start from."""
    return request.image_root or default_image_root(request.input)


def image_loader(request: EvaluationRequest, storage: Storage) -> ImageLoader:
    """Return the loader that follows references within what the request allows.

    :raises RequestError: the request allows what can never work.
    """
    own = bucket_of(request.input)
    policy = ImagePolicy(
        root=image_root(request),
        image_hosts=request.image_hosts,
        max_bytes=request.max_image_bytes,
        max_pixels=request.max_image_pixels,
        buckets=request.image_buckets if own is None else (*request.image_buckets, own),
    )
    return ImageLoader(storage, policy)
