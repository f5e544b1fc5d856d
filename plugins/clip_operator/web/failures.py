"""Why a task instance has failed, as it has left it itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clip_operator.operators.failures import DOCUMENTED, MOST_CHARACTERS, WHAT_TO_DO, facts


@dataclass(frozen=True)
class Failure:
    """What a task instance says of its failure.

    :param facts: the reason, one fact after another.
    """

    facts: list[str]
    what_to_do: str
    documented: str = DOCUMENTED


def failure_in(value: Any) -> Failure | None:
    """Return what the XCom says, or None if it is another operator's."""
    if not isinstance(value, Mapping):
        return None
    kind, reason = value.get("kind"), value.get("reason")
    if not isinstance(kind, str) or not isinstance(reason, str) or kind not in WHAT_TO_DO:
        return None
    return Failure(facts(reason[:MOST_CHARACTERS]), WHAT_TO_DO[kind])
