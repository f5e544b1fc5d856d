"""Text tables cut into spans: what is read and written of them, put together, is what a single pass writes."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.tables import (
    Cuts,
    Fragment,
    Span,
    create_table,
    cut_text,
    file_type_of,
    join_arrays,
    open_table,
    text_files,
)
from clip_operator.tables.csv import reader as csv_reader
from tests.tables.json.json_texts import objects
from tests.tables.rewriting import Added, rewrite

BLANKS = ["\n", "\r\n", " \t\n", "\n\n"]
CELLS = st.sampled_from(
    ["", "00123", "a", 'it"s', 'x""y"', '"q,\nq"', '"say ""so"""', '"a\r\nb\n"', "é\u2028", "\ufeff", "'", '"\n\n"']
)
RESULTS: Added = {"clip_score": [row / 7 for row in range(100)], "clip_error": [f"é,{row}\n" for row in range(100)]}
TARGETS = {"jsonl": ["jsonl", "json"], "json": ["json", "jsonl"], "csv": ["csv", "jsonl", "json"]}


@st.composite
def lines(draw: st.DrawFn) -> str:
    """JSONL with blank lines, spaces around its objects, and perhaps no line feed at its end."""
    rows = draw(st.lists(objects(["", " ", "\t"]), max_size=9))
    parts = [draw(st.sampled_from(["", "\ufeff"]))]
    for row in rows:
        parts += draw(st.lists(st.sampled_from(BLANKS), max_size=1))
        parts.append(draw(st.sampled_from(["", " "])) + row + draw(st.sampled_from(["\n", "\r\n", " \n"])))
    text = "".join(parts) + draw(st.sampled_from(["", *BLANKS]))
    return text.rstrip("\n") if draw(st.booleans()) else text


@st.composite
def arrays(draw: st.DrawFn) -> str:
    """A JSON array laid out in any way."""
    space = st.sampled_from(["", " ", "\n", "\r\n  "])
    rows = draw(st.lists(objects(["", " ", "\n"]), max_size=9))
    separators = [draw(space) + "," + draw(space) for _ in rows[1:]]
    inside = draw(space) + "".join(map("".join, zip(rows, [*separators, ""], strict=bool(rows)))) + draw(space)
    return draw(st.sampled_from(["", "\ufeff"])) + draw(space) + "[" + inside + "]" + draw(space)


@st.composite
def records(draw: st.DrawFn) -> str:
    """CSV with line breaks and quotes in its cells, short rows, blank lines before, between and behind its records."""
    width = draw(st.integers(1, 3))
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    rows = draw(st.lists(st.lists(CELLS, min_size=1, max_size=width), max_size=9))
    blank = st.sampled_from(["", "", "\n", "\r\n"])
    text = draw(st.sampled_from(["", "\ufeff"])) + draw(blank)
    text += ",".join(["a", '"b\nb"', "c"][:width]) + ending
    for row in rows:
        text += draw(blank) + (",".join(row) or '""') + ending
    text += draw(blank)
    return text.rstrip("\r\n") if draw(st.booleans()) else text


FORMATS = {"jsonl": lines(), "json": arrays(), "csv": records()}
TABLES = st.sampled_from(sorted(FORMATS)).flatmap(lambda name: st.tuples(st.just(name), FORMATS[name]))


def cut(content: bytes, name: str, rows: int) -> Cuts:
    return cut_text(io.BytesIO(content), file_type_of(name), rows)


def written_in_parts(
    folder: Path, text: bytes, suffix: str, target: str, cuts: Cuts, ends: Sequence[int], chunk: int
) -> list[bytes]:
    """What each of some runs of spans becomes, each run read as a fragment and written as one.

    :param ends: after which spans a run ends.
    """
    outputs = []
    spans = cuts.spans
    starts = [0, *ends]
    for start, end in zip(starts, [*ends, len(spans)], strict=True):
        run = spans[start:end]
        part = folder / f"part.{suffix}"
        part.write_bytes(text[: cuts.header_bytes] + text[run[0].start : run[-1].stop])
        fragment = Fragment(first=start == 0, last=end == len(spans))
        first = run[0].first_row
        assert first is not None
        results = {name: values[first:] for name, values in RESULTS.items()}
        added = {name: values[: sum(span.rows or 0 for span in run)] for name, values in results.items()}
        rewrite(part, folder / f"part-out.{target}", added, chunk, fragment)
        outputs.append((folder / f"part-out.{target}").read_bytes())
    return outputs


@settings(
    max_examples=250, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=TABLES, rows=st.integers(1, 4), chunk=st.integers(1, 5), packed=st.booleans(), data=st.data())
def test_the_outputs_of_all_spans_are_the_output_of_a_single_pass(
    tmp_path: Path, table: tuple[str, str], rows: int, chunk: int, packed: bool, data: st.DataObject
) -> None:
    suffix, text = table[0], table[1].encode()
    name = suffix + ".gz" * packed
    (tmp_path / f"t.{name}").write_bytes(gzip.compress(text) if packed else text)
    target = data.draw(st.sampled_from(TARGETS[suffix]))

    cuts = cut((tmp_path / f"t.{name}").read_bytes(), name, rows)

    count = sum(span.rows or 0 for span in cuts.spans)
    rewrite(tmp_path / f"t.{name}", tmp_path / f"out.{target}", {k: v[:count] for k, v in RESULTS.items()}, chunk)
    whole = (tmp_path / f"out.{target}").read_bytes()
    between = range(1, len(cuts.spans))
    ends = sorted(data.draw(st.sets(st.sampled_from(between)))) if between else []
    assert b"".join(written_in_parts(tmp_path, text, suffix, target, cuts, ends, chunk)) == whole


@settings(
    max_examples=120, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=TABLES, rows=st.integers(1, 4))
def test_spans_cover_every_byte_and_end_at_multiples_of_the_rows(
    tmp_path: Path, table: tuple[str, str], rows: int
) -> None:
    name, text = table
    (tmp_path / f"t.{name}").write_bytes(text.encode())
    with open_table(tmp_path / f"t.{name}", file_type_of(name)) as reader:
        scanned = reader.scan().rows
    cuts = cut(text.encode(), name, rows)
    first, last = cuts.spans[0], cuts.spans[-1]
    assert (first.start, first.first_row) == (cuts.header_bytes, 0)
    assert last.stop == len(text.encode())
    assert sum(span.rows or 0 for span in cuts.spans) == scanned
    for span, later in zip(cuts.spans, cuts.spans[1:], strict=False):
        assert (later.start, later.first_row) == (span.stop, (span.first_row or 0) + rows)
        assert span.rows == rows
    assert name == "csv" or cuts.header_bytes == 0


def test_spans_of_csv_begin_behind_the_header() -> None:
    cuts = cut('\ufeff\r\na,"b\nb"\r\n1,"x\ny"\r\n\r\n2,é\r\n3,4'.encode(), "csv", 2)
    assert cuts == Cuts(14, (Span(14, 31, 0, 2), Span(31, 34, 2, 1)))


@pytest.mark.parametrize(
    ("name", "content", "header"), [("jsonl", b" \n\n", 0), ("json", b"[ ]\n", 0), ("csv", b"a,b\n\n", 4)]
)
def test_a_table_without_rows_is_one_span_without_rows(name: str, content: bytes, header: int) -> None:
    assert cut(content, name, 5) == Cuts(header, (Span(header, len(content), 0, 0),))
    if name == "jsonl":
        assert cut(b"", name, 5) == Cuts(0, (Span(0, 0, 0, 0),))
    else:
        with pytest.raises(JobError, match="the file is empty, without even"):
            cut(b"", name, 5)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("target", ["jsonl", "json", "csv"])
def test_a_span_can_become_a_table_of_its_own(tmp_path: Path, suffix: str, target: str) -> None:
    content = {
        "jsonl": b'{"a":"1"}\n{"a":"2"}\n{"a":"3"}\n',
        "json": b'[{"a":"1"},\n{"a":"2"},\n{"a":"3"}]\n',
        "csv": b"a\n1\n2\n3\n",
    }[suffix]
    if target not in TARGETS[suffix]:
        return
    cuts = cut(content, suffix, 1)
    middle = cuts.spans[1]
    source, output = tmp_path / f"t.{suffix}", tmp_path / f"out.{target}"
    source.write_bytes(content[: cuts.header_bytes] + content[middle.start : middle.stop])
    with (
        open_table(source, file_type_of(suffix), fragment=Fragment(first=False, last=False)) as reader,
        create_table(output, file_type_of(target), reader, {}) as writer,
    ):
        for chunk in reader.chunks(10):
            writer.write(chunk, {})
    with open_table(output, file_type_of(target), ["a"]) as reader:
        assert [value for chunk in reader.chunks(10) for value in chunk.column("a")] == ["2"]


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(counts=st.lists(st.integers(0, 2), min_size=1, max_size=4))
@example(counts=[0, 1])
@example(counts=[1, 0])
@example(counts=[0, 0])
def test_fragments_of_an_array_without_rows_are_joined(tmp_path: Path, counts: list[int]) -> None:
    files, outputs = [], []
    for number, count in enumerate(counts):
        files.append(tmp_path / f"{number}.jsonl")
        files[-1].write_bytes(b'{"a": 1}\n' * count)
        fragment = Fragment(number == 0, number == len(counts) - 1)
        rewrite(files[-1:], tmp_path / "part.json", {}, fragment=fragment)
        outputs.append((tmp_path / "part.json").read_bytes())
    rewrite(files, tmp_path / "whole.json", {})
    whole, joined = (tmp_path / "whole.json").read_bytes(), io.BytesIO()

    join_arrays([io.BytesIO(output) for output in outputs], joined)

    assert joined.getvalue() == whole
    if len(counts) == 1 or (counts[0] and counts[-1]):
        assert b"".join(outputs) == whole


LONG = b"x" * 2_000_000
SAME_ERRORS: list[tuple[str, bytes, str]] = [
    ("jsonl", b'{"a":1}\n{"a":"' + LONG + b'"}\n', "line 2 is larger than 1 MiB"),
    ("json", b'[{"a":1},{"a":"' + LONG + b'"}]', "element 2 is larger than 1 MiB"),
    ("csv", b'a\n"' + LONG + b'"\n', "line 2 is larger than 1 MiB"),
    ("csv", b'a\n"' + b"x\n" * 1_000_000 + b'"\n', "the row that starts in line 2 is larger than 1 MiB"),
    ("json", b'[{"a":"\xff"}]', "line 1 is not UTF-8"),
    ("csv", b"a\n\xff\n", "line 2 is not UTF-8"),
    ("csv", b"a\n1,2\n", "line 2 has 2 cells, but the header has 1"),
    ("csv", b'a\n"1\n', "the row that starts in line 2 is not valid CSV"),
    ("json", b'[{"a":1}', "The file ends after element 1"),
    ("json", b'{"a":1} {"a":2}', "There is more text behind the end of the object"),
    ("jsonl.gz", gzip.compress(b'{"a":1}\n' * 1000, mtime=0)[:-20], "The gzip data ends too early"),
    ("csv.gz", b"a\n1\n", "The file name ends in .gz but"),
]


@pytest.mark.parametrize(("name", "content", "problem"), SAME_ERRORS)
def test_what_a_scan_refuses_is_not_cut_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, problem: str
) -> None:
    monkeypatch.setattr(text_files, "MAX_ROW_LENGTH", 1024 * 1024)
    monkeypatch.setattr(csv_reader, "MAX_ROW_LENGTH", 1024 * 1024)
    path = tmp_path / f"t.{name}"
    path.write_bytes(content)
    with pytest.raises(JobError) as scanned, open_table(path, file_type_of(name)) as reader:
        reader.scan()
    with pytest.raises(JobError) as caught:
        cut(content, name, 10)
    assert str(caught.value) == str(scanned.value)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("fragment", [Fragment(first=False), Fragment(first=False, last=False), Fragment(last=False)])
@pytest.mark.parametrize("content", [b'{"a":1}', b', {"a":1} {"b":1}', b',{"a":1},', b'[{"a":1}] x'])
def test_a_span_of_an_array_that_is_not_one_is_refused(tmp_path: Path, fragment: Fragment, content: bytes) -> None:
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(JobError), open_table(tmp_path / "t.json", file_type_of("json"), fragment=fragment) as reader:
        reader.scan()


def test_a_byte_order_mark_inside_a_table_is_no_start_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes('\ufeff{"a":1}\n'.encode())
    span = Fragment(first=False)
    with (
        pytest.raises(JobError, match="line 1 is not valid JSON"),
        open_table(tmp_path / "t.jsonl", file_type_of("jsonl"), fragment=span) as reader,
    ):
        reader.scan()


class _Repeated(io.RawIOBase):
    """A stream that says the same over and over, made as it is read."""

    def __init__(self, start: bytes, row: bytes, rows: int, end: bytes) -> None:
        self._blocks = (block for block in [start, *[row * 1000] * (rows // 1000), end] if block)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]  # RawIOBase promises bytes-like, which typing cannot say
        if not self._rest:
            self._rest = next(self._blocks, b"")
        taken = self._rest[: len(view)]
        view[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


@pytest.mark.parametrize(
    ("name", "start", "row", "end"),
    [
        ("jsonl", b"", b'{"a": "%s"}\n' % (b"x" * 80), b""),
        ("json", b"[", b'{"a": "%s"},' % (b"x" * 80), b"{}]"),
        ("csv", b"a\n", b'"%s\n"\n' % (b"x" * 80), b""),
    ],
)
def test_a_long_table_is_cut_in_little_memory(name: str, start: bytes, row: bytes, end: bytes) -> None:
    stream = io.BufferedReader(_Repeated(start, row, 200_000, end))
    tracemalloc.start()
    try:
        cuts = cut_text(stream, file_type_of(name), 50_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(cuts.spans) == 4 + (name == "json")
    assert peak < 8_000_000


def test_only_texts_are_cut_as_texts_and_never_into_nothing() -> None:
    for name in ("parquet", "tar"):
        with pytest.raises(ValueError, match="not cut as a text"):
            cut(b"", name, 1)
    with pytest.raises(ValueError, match="at least one row"):
        cut(b"", "jsonl", 0)
