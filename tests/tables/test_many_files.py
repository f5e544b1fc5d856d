"""Several files as one table: their rows in order, with what has to stand between them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import pytest

from clip_operator.errors import JobError
from clip_operator.tables import Fragment, file_type_of, open_table
from tests.tables.rewriting import Added, rewrite

BOM = "\ufeff"
FILES = {
    "jsonl": [f'{BOM}{{"n":"0"}}\r\n\n{{"n":"1"}}', "", f'{BOM} {{"n":"2"}} ', '{"n":"3"}\n'],
    "json": [f'{BOM}[ {{"n":"0"}},{{"n":\n"1"}} ]\n', "[]", '[{"n":"2"}]', '[\n{"n":"3"}\n]\n'],
    "csv": [f"{BOM}n,m\r\n0\r\n1,1", "n,m", f'{BOM}"n",m\n2,"2\n"', "n,m\n3,3\n"],
}
TARGETS = {"jsonl": ["jsonl", "json"], "json": ["json", "jsonl"], "csv": ["csv", "jsonl", "json"]}
PAIRS = [(name, target) for name, targets in TARGETS.items() for target in targets]


def saved(folder: Path, suffix: str, contents: Sequence[str]) -> list[Path]:
    paths = [folder / f"part-{number}.{suffix}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content.encode())
    return paths


def scores(rows: int, start: int = 0) -> Added:
    return {"s": [row / 7 for row in range(start, start + rows)]}


@pytest.mark.parametrize(("suffix", "target"), PAIRS)
def test_the_rows_of_all_files_become_one_table(tmp_path: Path, suffix: str, target: str) -> None:
    paths = saved(tmp_path, suffix, FILES[suffix])
    with open_table(paths, file_type_of(suffix), ["n"]) as reader:
        assert reader.scan().rows == 4
        chunks = list(reader.chunks(3))
    assert [chunk.first_row for chunk in chunks] == [0, 3]
    rewrite(paths, tmp_path / f"out.{target}", scores(4), 1)
    with open_table(tmp_path / f"out.{target}", file_type_of(target), ["n", "s"]) as reader:
        [chunk] = reader.chunks(10)
    assert chunk.column("n") == ["0", "1", "2", "3"]
    assert [float(str(value)) for value in chunk.column("s")] == scores(4)["s"]


def test_lines_and_records_keep_their_texts(tmp_path: Path) -> None:
    rewrite(saved(tmp_path, "jsonl", FILES["jsonl"]), tmp_path / "out.jsonl", scores(4))
    assert (tmp_path / "out.jsonl").read_bytes() == (
        b'{"n":"0","s":0.0}\r\n{"n":"1","s":0.14285714285714285}\n {"n":"2","s":0.2857142857142857} \n'
        b'{"n":"3","s":0.42857142857142855}\n'
    )
    rewrite(saved(tmp_path, "csv", FILES["csv"]), tmp_path / "out.csv", scores(4))
    assert (tmp_path / "out.csv").read_bytes() == (
        b"\xef\xbb\xbfn,m,s\r\n0,,0.0\r\n1,1,0.14285714285714285\r\n"
        b'2,"2\n",0.2857142857142857\n3,3,0.42857142857142855\n'
    )


ROWS = [2, 0, 1, 1]


@pytest.mark.parametrize(("suffix", "target"), PAIRS)
@pytest.mark.parametrize("cuts", list(product([False, True], repeat=3)))
def test_files_scored_apart_give_the_bytes_of_files_scored_together(
    tmp_path: Path, suffix: str, target: str, cuts: tuple[bool, ...]
) -> None:
    paths = saved(tmp_path, suffix, FILES[suffix])
    rewrite(paths, tmp_path / f"whole.{target}", scores(4))
    ends = [0, *(number for number, is_cut in enumerate(cuts, 1) if is_cut), 4]
    outputs = []
    for start, end in pairwise(ends):
        added = scores(sum(ROWS[start:end]), sum(ROWS[:start]))
        rewrite(paths[start:end], tmp_path / f"part.{target}", added, 1, Fragment(start == 0, end == 4))
        outputs.append((tmp_path / f"part.{target}").read_bytes())
    assert b"".join(outputs) == (tmp_path / f"whole.{target}").read_bytes()


def test_one_of_many_files_is_written_as_all_of_them_are(tmp_path: Path) -> None:
    [path] = saved(tmp_path, "json", ['[ {"n": 1} ]'])
    rewrite([path], tmp_path / "out.json", {})
    assert (tmp_path / "out.json").read_bytes() == b'[\n{"n": 1}\n]\n'
    assert json.loads((tmp_path / "out.json").read_bytes()) == [{"n": 1}]


@pytest.mark.parametrize(
    ("suffix", "contents", "problem"),
    [
        ("jsonl", ["{}\n", "{}\n{]\n"], "part-1.jsonl: line 2 is not valid JSON"),
        ("json", ["[]", "1"], "part-1.json: The file holds a number at top level"),
        (
            "csv",
            ["a,b\n", "a,c\n"],
            "part-1.csv: its header is not that of part-0.csv: its column 2 has another name; files that",
        ),
        ("csv", ["a,b\n", "b,a\n"], "part-1.csv: its header is not that of part-0.csv: its column 1 has another name"),
        ("csv", ["a\n", "a\n1,2\n"], "part-1.csv: line 2 has 2 cells"),
        ("csv", ["a\n", "\n"], "part-1.csv: the file is empty, without even a header"),
        ("json", ["[]", ""], "part-1.json: the file is empty, without even an array"),
        ("csv", ["", "a\n"], "part-0.csv: the file is empty, without even a header"),
    ],
)
def test_an_error_names_the_file(tmp_path: Path, suffix: str, contents: list[str], problem: str) -> None:
    paths = saved(tmp_path, suffix, contents)
    with pytest.raises(JobError) as caught, open_table(paths, file_type_of(suffix)) as reader:
        reader.scan()
    assert str(caught.value).startswith(problem)
