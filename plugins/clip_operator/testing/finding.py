"""What is wrong with a DAG, in one line."""

from __future__ import annotations

from dataclasses import dataclass

from clip_operator.redaction import plain


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong.

    :param file: the DAG's file, from the folder that was examined.
    :param what: what is wrong, and what to do.
    :param dag_id: of which DAG; None if it is the file that is wrong.
    :param task_id: of which task; None if it is the DAG that is wrong.
    """

    file: str
    what: str
    dag_id: str | None = None
    task_id: str | None = None

    def __str__(self) -> str:
        """Return it as one line, without secrets."""
        place = " ".join(part for part in (self.dag_id, self.task_id) if part)
        return plain(f"{self.file}: {f'{place}: ' if place else ''}{self.what}")
