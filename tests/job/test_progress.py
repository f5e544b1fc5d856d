"""Progress shows where a person looks: a bar on a terminal, lines in a log."""

from __future__ import annotations

import logging
import os
import pty
import re
import termios
import time
from datetime import timedelta
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


@pytest.mark.parametrize("spread", [[(8_000, 7_900), (9_000, 7_900)], [(4_500, 3_500), (5_000, 3_950), (6_000, 4_900)]])
def test_rows_that_an_earlier_try_has_left_do_not_make_the_others_look_fast(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, spread: list[tuple[int, int]]
) -> None:
    """At ten rows a second that are scored, of 10,000 of which 7,900 are known: at the start, or here and there."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with caplog.at_level(logging.INFO):
        progress = LogProgress(total=10_000, left_before=7_900, interval=0)
        for done, known in spread:
            clock[0] = (done - known) / 10
            progress.update(done, failed=0, known=known)
    for (done, known), message in zip(spread, caplog.messages, strict=True):
        left = timedelta(seconds=(10_000 - 7_900 - (done - known)) / 10)
        assert message.endswith(f" 10.0 rows/s, 0 failed, about {left} left")


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
