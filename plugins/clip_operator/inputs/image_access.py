"""What a request lets the rows of its data set make the job read."""

from __future__ import annotations

from collections.abc import Collection

from clip_operator.errors import Reason
from clip_operator.images import ImageLoader, ImagePolicy, PathMending, bucket_of
from clip_operator.inputs import default_image_root
from clip_operator.request import EvaluationRequest
from clip_operator.storage import Storage, display

_OF_TEXTS = frozenset({Reason.TEXT_MISSING, Reason.TEXT_EMPTY, Reason.TEXT_INVALID})
_OF_PLACES = frozenset({Reason.IMAGE_NOT_FOUND, Reason.IMAGE_FORBIDDEN})


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
        prefixes=request.image_prefixes,
        mending=path_mending(request),
    )
    return ImageLoader(storage, policy)


def path_mending(request: EvaluationRequest) -> PathMending:
    """Return what is done to image paths before they are followed."""
    return PathMending.of(request.image_path_repairs, request.image_path_rewrite)


def what_to_check(request: EvaluationRequest, reasons: Collection[Reason]) -> str:
    """Return what a user should look at where rows fail for these reasons, as a sentence without its full stop."""
    keys = [request.input_image_key] * any(reason not in _OF_TEXTS for reason in reasons)
    keys += [request.input_text_key] * any(reason in _OF_TEXTS for reason in reasons)
    advice = "Check " + " and ".join(f"the column {key!r}" for key in keys)
    if _OF_PLACES.isdisjoint(reasons):
        return advice
    return f"{advice}, and image_root: relative image paths start at {display(image_root(request))}"
