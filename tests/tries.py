"""Tries of a job in processes of their own, so that they can be killed at any moment."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import boto3

from clip_operator.errors import ClipOperatorError
from clip_operator.job import evaluation, first_pass
from clip_operator.request import EvaluationRequest
from clip_operator.scoring import Scorer
from clip_operator.storage import ObjectInfo, S3Access, Storage
from tests.preloaded import PROCESSES

T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """How a try reaches S3."""

    endpoint_url: str
    access_key: str
    secret_key: str

    def s3(self) -> S3Access:
        """Return the access of one process."""
        session = boto3.session.Session(self.access_key, self.secret_key, region_name="us-east-1")
        return S3Access(session, self.endpoint_url)


@dataclass(frozen=True)
class Death:
    """When a try is to be killed: right before or right after one of the changes that it makes in the store."""

    change: int
    before: bool


@dataclass
class Tries:
    """Runs tries of jobs, and notes which rows each of them scores.

    :param folder: for the notes.
    :param access: how tries reach S3; None if they read and write local files.
    """

    folder: Path
    access: Access | None = None
    started: list[Any] = field(default_factory=list)

    def start(self, request: EvaluationRequest, death: Death | None = None) -> Any:
        """Start a try; return its process."""
        notes = self.folder / f"try-{len(self.started)}"
        process = PROCESSES.Process(target=_try, args=(request, self.access, notes, death))
        process.start()
        self.started.append(process)
        return process

    def error(self, process: Any) -> str:
        """Return what the error said with which a try ended."""
        return (self.folder / f"try-{self.started.index(process)}.error").read_text()

    def scored(self) -> Counter[int]:
        """Return how often each row's score was computed, and not taken over from an earlier try."""
        times: Counter[int] = Counter()
        for notes in self.folder.glob("try-*.scored"):
            times.update(int(row) for row in notes.read_text().split())
        return times

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.started:
            process.kill()
            process.join()


class _DeadlyStorage(Storage):
    """Kills its process at one change of the store."""

    def __init__(self, s3: S3Access | None, death: Death) -> None:
        super().__init__(s3)
        self._death = death
        self._changes = 0

    def write(self, *arguments: Any) -> ObjectInfo:
        return self._at_a_change(super().write, *arguments)

    def upload(self, *arguments: Any) -> ObjectInfo:
        return self._at_a_change(super().upload, *arguments)

    def delete(self, uri: str) -> None:
        return self._at_a_change(super().delete, uri)

    def delete_folder(self, uri: str) -> None:
        return self._at_a_change(super().delete_folder, uri)

    def _at_a_change(self, change: Callable[..., T], *arguments: Any) -> T:
        self._changes += 1
        now = self._changes == self._death.change
        if now and self._death.before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = change(*arguments)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def _try(request: EvaluationRequest, access: Access | None, notes: Path, death: Death | None) -> None:
    note = os.open(f"{notes}.scored", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    class NotedScorer(Scorer):
        def score(self, chunks: Any) -> Any:
            for rows, results in super().score(chunks):
                assert rows.known is not None
                found = [
                    str(rows.content.first_row + row)
                    for row, (known, result) in enumerate(zip(rows.known, results, strict=True))
                    if known is None and result.score is not None
                ]
                os.write(note, " ".join([*found, ""]).encode())
                yield rows, results

    tempfile.tempdir = str(notes.parent)
    s3 = None if access is None else access.s3()
    with patch.object(first_pass, "Scorer", NotedScorer):
        try:
            evaluation.evaluate(request, Storage(s3) if death is None else _DeadlyStorage(s3, death))
        except ClipOperatorError as error:
            Path(f"{notes}.error").write_text(str(error))
            os._exit(1)
    os._exit(0)
