"""How a task that fails says why: in the last lines of its log, and in an XCom that the pages in Airflow's UI show."""

from __future__ import annotations

import logging
import re
import textwrap
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import redact

from clip_operator.errors import ClipOperatorError, RequestError
from clip_operator.redaction import plain

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

FAILURE = "failure"
"""The XCom's key. Airflow clears a task's XComs when its next try begins."""

DOCUMENTED = "docs/troubleshooting.md"
"""Where each message stands, by its words."""

MOST_CHARACTERS = 4000
"""Of a reason, in the XCom."""

# Airflow's log view puts time and level before a line, and clips what is wider than the window.
_WIDTH = 80
_LABEL = 6
_END_OF_FACT = re.compile(r"(?<=;)\s+|(?<=[.!?])\s+(?=[A-Z])")

WHAT_TO_DO = {
    "request": "Mend what the task is given and clear the task. Another try alone would say the same.",
    "job": "Mend it and clear the task, or let Airflow try again. What was scored is taken over where it can be.",
    "gate": "Look at the report. Clear the task once the data are better, or the limit is another.",
    "unexpected": "The package does not know this error. The trace in the task's log shows where it arose.",
}
"""What follows from an error, by its kind."""


def facts(text: str) -> list[str]:
    """Return what a message says, one fact after another."""
    return [fact for fact in _END_OF_FACT.split(text.strip()) if fact]


def tell_failure(context: Context, error: Exception, kind: str | None = None) -> None:
    """Say why a task fails, in lines that no window clips, and leave it where the pages find it.

    :param kind: one of :data:`WHAT_TO_DO`; by default what the error itself says.
    """
    is_ours = isinstance(error, ClipOperatorError)
    if kind is None:
        kind = "unexpected" if not is_ours else "request" if isinstance(error, RequestError) else "job"
    text = str(error) if is_ours or kind == "gate" else f"{type(error).__name__}: {plain(str(error))}"
    reason = str(redact(text))
    shard = getattr(context["task"], "shard", None)
    _log(context, reason, kind, shard)
    value = {"kind": kind, "reason": _shortened(reason), "shard": shard if isinstance(shard, str) else None}
    try:
        context["ti"].xcom_push(key=FAILURE, value=value)
    except Exception as trouble:  # whatever Airflow's API says, the task's own error is what counts
        log.warning("Why the task fails could not be left as the XCom %r: %s", FAILURE, plain(str(trouble)))


def _log(context: Context, reason: str, kind: str, shard: Any) -> None:
    log.error("The task fails.")
    label = context.get("shard_label") or shard  # only the shards' tasks have one
    said = {"Shard": [str(label)] if label else [], "Why": facts(reason), "Next": facts(WHAT_TO_DO[kind])}
    for name, each in {**said, "See": [f"{DOCUMENTED}, which lists messages by their words."]}.items():
        beginning = f"{name}:"
        for fact in each:
            for line in textwrap.wrap(fact, _WIDTH - _LABEL - 1, break_on_hyphens=False):
                log.error("%s %s", beginning.ljust(_LABEL), line)
                beginning = ""


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
