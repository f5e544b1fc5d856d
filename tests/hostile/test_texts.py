"""Data sets whose captions and references are of every wrong type, size and script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.jobs import plain_image, plain_score, run, score_rows
from tests.images.pictures import drawn, encoded

IMAGE = encoded(drawn())
GOOD = {"image_path": "good.png", "text": "a red circle"}

INVALID_TEXTS: list[tuple[Any, str]] = [
    (None, "text_missing"),
    (float("nan"), "text_missing"),
    (float("inf"), "text_invalid"),
    (0, "text_invalid"),
    (-1.5, "text_invalid"),
    (10**400, "text_invalid"),
    (True, "text_invalid"),
    ([], "text_missing"),
    ([["a red circle"]], "text_invalid"),
    (["a red circle", "a blue one"], "text_invalid"),
    ({"text": "a red circle"}, "text_invalid"),
    ("", "text_empty"),
    (" \t\r\n\x0b\x0c", "text_empty"),
    ("\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000", "text_empty"),
    ("half of a pair: \ud83d", "text_invalid"),
    ("\udc80", "text_invalid"),
]
ODD_TEXTS = [
    "a\0red\0circle",
    "\0",
    "\ufeffa red\ufeff circle",
    "\u200b",
    "🔴👨‍👩‍👧‍👦🏳️‍🌈",
    "עיגול אדום \u202e דרי \u202c",
    "دائرة حمراء",
    "红色的圆圈 红い円",
    "r" + "\u0301" * 5000,
    "\U0010ffff\ue000\ufffe",
    "<|endoftext|> a red circle <|startoftext|>",
    "</script><img src=x onerror=alert(1)>",
    "a red circle" * 1000,
    "x" * 100_000,
    "a red\u2028circle\x85\x1e",
]
REFERENCES: list[tuple[Any, str | None]] = [
    (None, "image_missing"),
    (float("nan"), "image_missing"),
    ("", "image_missing"),
    (" \t\n", "image_missing"),
    ({"path": None, "bytes": None}, "image_missing"),
    (0, "image_unreadable"),
    (10**400, "image_unreadable"),
    (False, "image_unreadable"),
    (float("inf"), "image_unreadable"),
    ([], "image_missing"),
    (["good.png"], None),
    ([["good.png"]], "image_unreadable"),
    (["good.png", "good.png"], "image_unreadable"),
    ({}, "image_unreadable"),
    ({"url": "good.png"}, "image_unreadable"),
    ({"path": {"path": "good.png"}}, "image_unreadable"),
    ({"path": "good.png"}, None),
    ({"bytes": None, "path": "good.png"}, None),
    ({"path": "../good.png"}, "image_forbidden"),
    ("https://h/" + "eyJaaaaaaaa-" * 200_000, "image_forbidden"),  # what may be a token is looked for in short texts
    (" good.png", "image_not_found"),
    ("GOOD.PNG", "image_not_found"),
    ("x" * 1_000_000, "image_not_found"),
    ("a/" * 500_000, "image_not_found"),
    ("../" * 500_000, "image_forbidden"),
    ("data:image/png;base64," + "A" * 1_000_000, "image_unreadable"),
    ("data:" + ";" * 1_000_000, "image_unreadable"),
    ("http://" + "[" * 100_000, "image_forbidden"),
    ("file://" + "%" * 100_000, "image_forbidden"),
    ("s3://" + "x" * 100_000, "image_forbidden"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.png").write_bytes(IMAGE)
    return tmp_path


def test_captions_that_are_no_texts_have_a_reason_each(folder: Path) -> None:
    rows = [GOOD, *({"image_path": "good.png", "text": text} for text, _ in INVALID_TEXTS), GOOD]
    scored = score_rows(folder, rows, "t")
    assert [row["why"] for row in scored] == [None, *(why for _, why in INVALID_TEXTS), None]
    assert scored[0]["clip_score"] == scored[-1]["clip_score"] == pytest.approx(plain(GOOD["text"]), abs=1e-5)


def test_captions_of_every_script_score_as_by_plain_transformers(folder: Path) -> None:
    rows = [GOOD, *({"image_path": "good.png", "text": text} for text in ODD_TEXTS)]
    for row in score_rows(folder, rows, "t"):
        assert row["clip_score"] == pytest.approx(plain(row["text"]), abs=1e-5), ascii(row["text"])[:60]


def test_references_that_name_no_file_have_a_reason_each(folder: Path) -> None:
    rows = [GOOD, *({"image_path": reference, "text": "a red circle"} for reference, _ in REFERENCES), GOOD]
    scored = score_rows(folder, rows, "t")
    assert [row["why"] for row in scored] == [None, *(why for _, why in REFERENCES), None]
    scores = {row["clip_score"] for row in scored} - {None}
    assert scores == {scored[0]["clip_score"]}


def test_a_caption_of_10_mb_ends_in_time_and_scores_as_its_beginning(folder: Path) -> None:
    start = "a red circle above a blue square, " * 10
    rows = [{"image_path": "good.png", "text": text} for text in (start, start * 30_000)]
    source = folder / "t.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = run(source, folder / "out.jsonl")
    assert (manifest.rows.scored, manifest.rows.truncated_texts) == (2, 2)
    short, long = (json.loads(line)["clip_score"] for line in (folder / "out.jsonl").read_text().splitlines())
    assert long == pytest.approx(short, abs=1e-6)


def plain(text: str) -> float:
    return plain_score(plain_image(IMAGE), text)
