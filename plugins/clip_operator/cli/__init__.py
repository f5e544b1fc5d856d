"""The command line, ``clip-operator`` or ``python -m clip_operator``: pods and other interpreters run the job by it."""

from clip_operator.cli.commands import DONE, FAILED, GATES_NOT_PASSED, WRONG_REQUEST, main

__all__ = ["DONE", "FAILED", "GATES_NOT_PASSED", "WRONG_REQUEST", "main"]
