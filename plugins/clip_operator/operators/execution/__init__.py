"""Where the scoring runs: in the task's own process, under another Python interpreter, or in a Kubernetes pod."""

from __future__ import annotations

from typing import Protocol

from clip_operator.operators.work import Work
from clip_operator.proof.manifest import EvaluationManifest


class Execution(Protocol):
    """One run of what one task instance does."""

    def run(self, work: Work) -> EvaluationManifest:
        """Carry out the work's request.

        :raises RequestError: the request is wrong.
        :raises JobError: the job failed, or was stopped.
        """

    def stop(self) -> None:
        """End the run soon. May be called from a signal handler, before ``run`` or while it is running."""
