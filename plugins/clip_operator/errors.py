"""The errors a user of the package can meet, from a wrong request to one row that cannot be scored."""

from __future__ import annotations

from enum import StrEnum

from clip_operator.redaction import plain


class ClipOperatorError(Exception):
    """Base of every error this package raises on purpose. Its text is written for the person who runs the job.

    :param text: may hold names that data chose, and what libraries say of URLs; it is made plain here.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(plain(text))


class RequestError(ClipOperatorError):
    """The request itself is wrong; nothing was read or written. The command line exits with 2."""


class JobError(ClipOperatorError):
    """The job cannot be done or go on. No output was written. The command line exits with 1."""


class Cancelled(JobError):
    """The job was told to stop and stopped before it wrote its output."""


class Reason(StrEnum):
    """Why a row has no score. These names appear in the error column, the log and the manifest."""

    IMAGE_MISSING = "image_missing"
    """The row names no image: the field is absent, null or blank."""
    IMAGE_NOT_FOUND = "image_not_found"
    """The reference is well formed but there is nothing at that place."""
    IMAGE_UNREADABLE = "image_unreadable"
    """The bytes are not an image that can be decoded whole."""
    IMAGE_TOO_LARGE = "image_too_large"
    """More bytes or pixels than the job accepts, or a shape so thin that resizing it would explode."""
    IMAGE_FORBIDDEN = "image_forbidden"
    """The reference points to where this job may not read: outside its root, a host not allowed, access denied."""
    IMAGE_UNAVAILABLE = "image_unavailable"
    """A web host did not deliver the image: no connection, time out, or an error that outlasted the retries."""
    TEXT_MISSING = "text_missing"
    """The row has no caption: the field is absent or null."""
    TEXT_EMPTY = "text_empty"
    """The caption is empty or only white space."""
    TEXT_INVALID = "text_invalid"
    """The caption is not a string."""

    @property
    def retryable(self) -> bool:
        """Whether another try over the same data set may end otherwise: the cause lies outside the row."""
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        Reason.IMAGE_NOT_FOUND,
        Reason.IMAGE_UNREADABLE,
        Reason.IMAGE_TOO_LARGE,
        Reason.IMAGE_FORBIDDEN,
        Reason.IMAGE_UNAVAILABLE,
    }
)


class RowError(ClipOperatorError):
    """One row cannot be scored. Data, not failure: the row gets no score and this reason.

    :param reason: the class of the failure, as counted in the manifest.
    :param detail: one sentence for the log; holds no secret and no more than a short piece of the input.
    :param image: which of a row's several images it is of, from 0; None where that is not known, or of none.
    """

    def __init__(self, reason: Reason, detail: str, image: int | None = None) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = plain(detail)
        self.image = image
