"""Progress shows where a person looks: a bar on a terminal, lines in a log."""

from __future__ import annotations

import logging
import os
import pty
import re
import termios
from pathlib import Path

import pytest

from clip_operator.job.progress import LogProgress
from tests.command_line import start
from tests.conftest import SHAPES


def test_a_log_line_says_how_far_how_fast_how_well_and_how_long_yet(caplog: pytest.LogCaptureFixture) -> None:
    progress = LogProgress(total=20_000, interval=0)
    with caplog.at_level(logging.INFO):
        progress.update(done=5_000, failed=12)
    words = r"5,000 of 20,000 rows \(25 %\), [\d,.]+ rows/s, 12 failed, about \d+:\d\d:\d\d left"
    assert re.fullmatch(words, caplog.messages[0])


def test_lines_come_no_faster_than_every_interval(caplog: pytest.LogCaptureFixture) -> None:
    progress = LogProgress(total=100, interval=3600)
    with caplog.at_level(logging.INFO):
        for done in range(1, 101):
            progress.update(done, failed=0)
    assert caplog.messages == []


def test_on_a_terminal_there_is_a_bar_and_the_manifest_is_still_alone_on_standard_output(
    shapes_dataset: Path, tmp_path: Path
) -> None:
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (25, 100))
    arguments = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", f"{tmp_path}/out.jsonl", "--model", SHAPES]
    with (tmp_path / "out").open("wb") as out, Path(os.devnull).open() as nothing:
        process = start("evaluate", *arguments, stdin=nothing.fileno(), stdout=out.fileno(), stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while block := os.read(screen, 4096):
            shown += block
    except OSError:  # how a terminal says that its last writer is gone
        pass
    process.join()
    assert process.exitcode == 0
    assert re.search(r"100%\|█+\| 64\.0/64\.0 \[.*row/s, failed=4\]", shown.decode())
    stdout = (tmp_path / "out").read_bytes()
    assert stdout.startswith(b'{"manifest_version"')
    assert stdout.count(b"\n") == 1
