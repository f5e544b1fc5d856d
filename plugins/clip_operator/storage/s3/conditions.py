"""How a store is told the condition of a write. Stores differ in what they keep to, which is found out once."""

from __future__ import annotations

import logging

from clip_operator.storage.objects import ObjectInfo

log = logging.getLogger(__name__)

# S3 takes an ETag with its quotes, as HTTP has it, and without. To Ceph's gateway 16 the quotes are a part of it, so
# that it never matches.
_QUOTED, _BARE, _ANY = '"{}"', "{}", "*"

# No object's. A store that writes under this condition takes no notice of an ETag without quotes.
_WRONG = "0" * 32

# Nothing is sent along: the look right before is all there is.
_UNSAID = ""


class Conditions:
    """What one store keeps to, as far as it is known; at first it is taken for S3 itself.

    :param endpoint: how the store is called in the log.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        # The ways to say a condition, one after the other while the store refuses what holds. A refusal is believed the
        # second time: another writer may have come and gone.
        self._ways: dict[str, tuple[str, ...]] = {
            "IfNoneMatch": (_ANY, _ANY, _UNSAID),
            "IfMatch": (_QUOTED, _QUOTED, _WRONG, _BARE, _UNSAID),
        }

    def ways(self, expected: ObjectInfo | None) -> tuple[str, ...]:
        """Return the ways to say that ``expected`` must stand at the place, or nothing, in the order to try them."""
        return self._ways[_name(expected)]

    def learn(self, expected: ObjectInfo | None, way: str) -> None:
        """Remember that the store has written when it was told so, and had refused the ways before."""
        name = _name(expected)
        if way == _BARE:
            self._ways[name] = (_BARE, _BARE, _UNSAID)
        elif way in (_WRONG, _UNSAID) and self._ways[name] != (_UNSAID,):
            self._ways[name] = (_UNSAID,)
            log.warning(
                "%s does not keep to the condition %s of writes. What stands at a place is looked at right before it "
                "is written instead, and of two runs that write it at the same moment the later one wins",
                self._endpoint,
                "If-None-Match" if expected is None else "If-Match",
            )


def headers(expected: ObjectInfo | None, way: str) -> dict[str, str]:
    """Return what boto3 is given to say it."""
    return {} if way == _UNSAID else {_name(expected): way.format("" if expected is None else expected.etag)}


def _name(expected: ObjectInfo | None) -> str:
    return "IfNoneMatch" if expected is None else "IfMatch"
