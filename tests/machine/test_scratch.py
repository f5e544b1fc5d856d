"""Scratch folders last as long as their jobs, and no longer."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

import pytest

from clip_operator.machine.scratch import scratch_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_that_another_job_meets_before_it_is_locked_is_made_anew(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def another_first(file: IO[str], operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        with scratch_folder():  # another job starts this very moment, and looks for what may be removed
            pass
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", another_first)
    with scratch_folder() as folder:
        (folder / "input").touch()
        with scratch_folder():
            assert (folder / "input").exists()
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_job_that_was_killed_is_removed_by_the_next(temporary: Path) -> None:
    dead = temporary / "clip-operator-job-dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "input").touch()
    with scratch_folder() as folder:
        assert list(temporary.iterdir()) == [folder]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_a_folder_that_another_user_made_under_such_a_name_is_left_alone(temporary: Path) -> None:
    theirs = temporary / "clip-operator-job-theirs"
    theirs.mkdir()
    (theirs / "lock").touch()
    (theirs / "input").touch()
    os.chown(theirs, 12345, 12345)
    with scratch_folder():
        pass
    assert (theirs / "input").exists()


def test_a_link_under_such_a_name_is_not_followed(temporary: Path) -> None:
    held = temporary / "held"
    held.mkdir()
    (held / "lock").touch()
    (temporary / "clip-operator-job-link").symlink_to(held)
    with scratch_folder():
        pass
    assert (held / "lock").exists()
