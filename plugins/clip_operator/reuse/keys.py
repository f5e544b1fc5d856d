"""What a score is known by: the image, the text, and all that decides what the model makes of them."""

from __future__ import annotations

import hashlib
import json

from clip_operator.proof.manifest import ModelProvenance
from clip_operator.request import EvaluationRequest

# Raised when this package comes to compute other scores of the same model, beyond their last bits.
_COMPUTATION = 1

KEY_BYTES = 16  # among 10^12 scores the chance that two keys agree is below 10^-14


class ScoreKeys:
    """Gives keys to the rows of one job. Jobs that would give a row another score, or none, give it another key.

    :param model: what scores.
    :param request: how images are decoded and turned, and up to which size they are accepted: with a key for each
        limit, a row that the job refuses has no score in the store either.
    """

    def __init__(self, model: ModelProvenance, request: EvaluationRequest) -> None:
        decisive = [
            _COMPUTATION,
            model.digest,
            model.precision,
            model.preprocessing,
            request.image_decoding,
            request.image_orientation,
            request.max_image_bytes,
            request.max_image_pixels,
        ]
        self._empty = hashlib.blake2b(
            digest_size=KEY_BYTES, key=hashlib.blake2b(json.dumps(decisive).encode(), digest_size=32).digest()
        )

    def of(self, identity: str | None, text: object) -> bytes | None:
        """Return the key of a row, or None for one that has no score or whose image may be another tomorrow.

        :param identity: the image's, from :class:`clip_operator.images.ImageVersions`.
        """
        if identity is None or not isinstance(text, str) or not text.strip():
            return None
        try:
            caption = text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which is no text
            return None
        image = identity.encode("utf-8", "surrogateescape")  # a file's name may be any bytes
        digest = self._empty.copy()
        digest.update(len(image).to_bytes(8, "big") + image + caption)
        return digest.digest()
