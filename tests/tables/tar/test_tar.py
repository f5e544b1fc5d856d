"""WebDataset tars in, tables out: whose row a file is, what becomes of it, and what a hostile tar can do: nothing."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.image_formats import IMAGE_ENDINGS
from clip_operator.tables import (
    Fragment,
    TableScan,
    UnreadableValue,
    create_table,
    file_type_of,
    open_table,
    table,
    text_files,
)
from tests.tables.rewriting import rewrite

TAR = file_type_of("tar")
COLUMNS = ("__key__", "__url__", "image_path", "text", "json", "members")

Member = tuple[str, bytes]


def tar_bytes(members: Sequence[Member | tarfile.TarInfo], tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar of these files; a bare header is added as it is, without data."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tar_format) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return sink.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def saved(folder: Path, members: Sequence[Member | tarfile.TarInfo], name: str = "00000.tar") -> Path:
    (folder / name).write_bytes(tar_bytes(members))
    return folder / name


def column(path: Path, name: str) -> list[object]:
    with open_table(path, TAR, [name]) as reader:
        return [value for chunk in reader.chunks(2) for value in chunk.column(name)]


def rows_of(path: Path) -> list[dict[str, object]]:
    """The rows as they come out in JSONL."""
    output = path.with_suffix(".jsonl")
    rewrite(path, output, {})
    return [json.loads(line) for line in output.read_text().splitlines()]


def refusal(path: Path) -> str:
    with pytest.raises(JobError) as caught, open_table(path, TAR) as reader:
        reader.scan()
    with pytest.raises(JobError) as again, open_table(path, TAR) as reader:
        list(reader.chunks(10))
    assert str(again.value) == str(caught.value)
    return str(caught.value)


DATA_SET: list[Member] = [
    ("train/a.jpg", b"JPEG a"),
    ("train/a.json", b'{"caption": "from json", "size": 1.10}\n'),
    ("train/a.txt", "a café\n".encode()),
    ("train/b.PNG", b"PNG b"),
    ("train/b.seg.png", b"mask"),
    ("train/b.cls", b"3"),
    ("train/c.json", b'{\n  "text": "only json",\n  "n": 1e400\n}'),
    ("train/d.txt", b"no image"),
    ("test/d.jpg", b"JPEG d"),
]


def test_files_of_one_name_are_one_row(tmp_path: Path) -> None:
    path = saved(tmp_path, DATA_SET)
    with open_table(path, TAR) as reader:
        assert reader.scan() == TableScan(5, COLUMNS)
    assert column(path, "image_path") == [b"JPEG a", b"PNG b", None, None, b"JPEG d"]
    assert column(path, "text") == ["a café\n", None, "only json", "no image", None]
    assert column(path, "__key__") == ["train/a", "train/b", "train/c", "train/d", "test/d"]
    assert column(path, "__url__") == ["00000.tar"] * 5
    assert column(path, "members") == [None, ["train/b.seg.png", "train/b.cls"], None, None, None]
    assert (
        column(path, "json")
        == [{"caption": "from json", "size": 1.10}, None, {"text": "only json", "n": 1e400}] + [None] * 2
    )
    assert column(path, "none") == [None] * 5


def test_rows_become_objects_with_the_fields_they_have(tmp_path: Path) -> None:
    scores = {"clip_score": [0.5, None, 0.25, 1.0, 0.0]}
    for target in ("out.jsonl", "out.json"):
        rewrite(saved(tmp_path, DATA_SET), tmp_path / target, scores, 2)
    lines = [
        '{"__key__": "train/a", "__url__": "00000.tar", "image_path": "train/a.jpg", "text": "a café\\n", '
        '"json": {"caption": "from json", "size": 1.10}, "clip_score": 0.5}',
        '{"__key__": "train/b", "__url__": "00000.tar", "image_path": "train/b.PNG", '
        '"members": ["train/b.seg.png", "train/b.cls"], "clip_score": null}',
        '{"__key__": "train/c", "__url__": "00000.tar", "text": "only json", '
        '"json": {"text": "only json", "n": 1e400}, "clip_score": 0.25}',
        '{"__key__": "train/d", "__url__": "00000.tar", "text": "no image", "clip_score": 1.0}',
        '{"__key__": "test/d", "__url__": "00000.tar", "image_path": "test/d.jpg", "clip_score": 0.0}',
    ]
    assert (tmp_path / "out.jsonl").read_text() == "\n".join(lines) + "\n"
    assert json.loads((tmp_path / "out.json").read_text()) == [json.loads(line) for line in lines]


def test_rows_become_parquet_of_strings(tmp_path: Path) -> None:
    rewrite(saved(tmp_path, DATA_SET), tmp_path / "out.parquet", {"clip_score": [0.5, None, 0.25, 1.0, 0.0]}, 2)
    output = pq.read_table(tmp_path / "out.parquet")
    assert output.schema.names == [*COLUMNS, "clip_score"]
    assert output["__key__"].to_pylist() == ["train/a", "train/b", "train/c", "train/d", "test/d"]
    assert output["image_path"].to_pylist() == ["train/a.jpg", "train/b.PNG", None, None, "test/d.jpg"]
    assert output["text"].to_pylist() == ["a café\n", None, "only json", "no image", None]
    assert output["json"].to_pylist()[:2] == ['{"caption": "from json", "size": 1.10}', None]
    assert output["members"].to_pylist()[1] == ["train/b.seg.png", "train/b.cls"]
    assert output["clip_score"].to_pylist() == [0.5, None, 0.25, 1.0, 0.0]
    rewrite(saved(tmp_path, [], "empty.tar"), tmp_path / "out.parquet", {"clip_score": []})
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_many_tars_are_one_table(tmp_path: Path) -> None:
    paths = [saved(tmp_path, [(f"{n}.jpg", b"%d" % n), (f"{n}.txt", b"t")], f"{n}.tar") for n in range(3)]
    with open_table(paths, TAR) as reader:
        assert reader.scan().rows == 3
        [chunk] = reader.chunks(10)
    assert chunk.column("image_path") == [b"0", b"1", b"2"]
    assert chunk.column("__url__") == ["0.tar", "1.tar", "2.tar"]
    paths[1].write_bytes(paths[1].read_bytes()[:700])
    with pytest.raises(JobError, match=r"^1\.tar: The tar is cut off"), open_table(paths, TAR) as reader:
        reader.scan()


def test_a_key_that_comes_again_is_another_row(tmp_path: Path) -> None:
    path = saved(tmp_path, [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"late")])
    assert column(path, "__key__") == ["a", "b", "a"]
    assert column(path, "text") == [None, None, "late"]


@pytest.mark.parametrize("ending", sorted(IMAGE_ENDINGS))
def test_every_format_that_is_read_alone_is_read_in_a_tar(tmp_path: Path, ending: str) -> None:
    path = saved(tmp_path, [(f"a.{ending.upper()}", b"image"), ("a.txt", b"text")])
    assert column(path, "image_path") == [b"image"]


NAMED: list[Member] = [
    ("a.IMG", b"image a"),
    ("a.cap", "\ufeffcaf\u00e9".encode()),
    ("a.json", b'{"prompt": "from json", "n": 1, "a.b": "dotted"}'),
    ("a.jpg", b"preview"),
    ("b.img", b"image b"),
    ("b.cap", b"\xff"),
    ("c.json", b'{"prompt": ["x", "y"], "more": {"deep": "inside"}}'),
]


@pytest.mark.parametrize(
    ("text_key", "texts"),
    [
        ("cap", ["caf\u00e9", UnreadableValue, None]),
        ("json.prompt", ["from json", None, ["x", "y"]]),
        ("json.prompt[1]", [None, None, "y"]),
        ("json.more.deep", [None, None, "inside"]),
        ("json.n", [1, None, None]),
        ("json.a.b", ["dotted", None, None]),
        ("__key__", ["a", "b", "c"]),
        ("text", [None, None, None]),
    ],
)
def test_the_image_and_the_caption_can_be_named(tmp_path: Path, text_key: str, texts: list[object]) -> None:
    path = saved(tmp_path, NAMED)
    own = ("img",) if text_key in COLUMNS else ("img", text_key)
    with open_table(path, TAR, [*own, "clip_score"], pair=("img", text_key)) as reader:
        if text_key != "text":
            assert reader.scan() == TableScan(3, (*COLUMNS, *own))
        chunks = list(reader.chunks(2))
        values = [value for chunk in chunks for value in chunk.column(text_key)]
        assert [type(v) if isinstance(v, UnreadableValue) else v for v in values] == texts
        assert [v for chunk in chunks for v in chunk.column("img")] == [b"image a", b"image b", None]
        assert [v for chunk in chunks for v in chunk.column("image_path")] == [b"preview", None, None]
        for target in ("out.jsonl", "out.parquet"):
            with create_table(tmp_path / target, file_type_of(target), reader, {}) as writer:
                for chunk in chunks:
                    writer.write(chunk.select([True] * len(chunk)), {})
    written = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["img"] for row in written] == ["a.IMG", "b.img", None]
    assert [row[text_key] for row in written] == [v if isinstance(v, str) else None for v in texts]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{name: line.get(name) for name in ("img", text_key)} for line in lines] == [
        {name: row[name] for name in ("img", text_key)} for row in written
    ]
    assert ("a.cap" in lines[0].get("members", [])) == (text_key != "cap")
    assert "b.cap" in lines[1]["members"]


def first_words(folder: Path, members: Sequence[Member], pair: tuple[str, str] | None = None) -> str:
    with pytest.raises(JobError) as caught, open_table(saved(folder, members), TAR, pair=pair) as reader:
        reader.scan()
    return str(caught.value)


def test_names_with_dots_are_explained_by_a_key_and_its_members(tmp_path: Path) -> None:
    dots = [(f"22.{n:02d}.{ending}", b"x") for n in range(4) for ending in ("png", "txt")]
    assert first_words(tmp_path, dots).startswith(
        "No row of the tar has an image: the first key is '22', and its members are '22.00.png', '22.00.txt', "
        "'22.01.png', '22.01.txt', '22.02.png', '22.02.txt', \u2026. Name its ending by input_image_key, as in img, or "
    )
    captions = [("a.png", b"x"), ("a.caption", b"x"), ("b.png", b"x")]
    assert first_words(tmp_path, captions).startswith(
        "No row of the tar has a caption: the first key is 'a', and its members are 'a.png', 'a.caption'. Name its "
        "ending by input_text_key, as in cap, or a field of its .json as in json.prompt, or "
    )
    assert "has a caption" in first_words(tmp_path, captions, pair=("png", "cap"))
    assert "has an image" in first_words(tmp_path, captions, pair=("jpg", "caption"))
    with open_table(saved(tmp_path, captions), TAR, pair=("png", "caption")) as reader:
        assert reader.scan().rows == 2
    with open_table(saved(tmp_path, captions), TAR, fragment=Fragment(first=False)) as reader:
        assert reader.scan().rows == 2, "other shards may have captions"


def test_files_of_a_row_that_do_not_stand_together_are_refused(tmp_path: Path) -> None:
    apart = [(f"{n}.{ending}", b"x") for ending in ("png", "txt") for n in range(3)]
    assert first_words(tmp_path, apart) == (
        "The members of the key '0' do not stand behind one another in the tar: '0.png' comes first, and '0.txt' "
        "behind other keys. Write the tar sorted by name (tar --sort=name)"
    )
    assert "the key '0'" in first_words(tmp_path, [*apart[2::-1], ("x.cls", b""), *apart[3:]])
    paths = [saved(tmp_path, [("0.png", b"x"), ("1.txt", b"x")], "a.tar"), saved(tmp_path, [("0.txt", b"x")], "b.tar")]
    with open_table(paths, TAR) as reader:
        assert reader.scan().rows == 3, "each tar has keys of its own"


def test_what_is_no_file_of_a_row_is_passed_over(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        [
            special("a", tarfile.DIRTYPE),
            ("._a.jpg", b"macOS"),
            ("a/.hidden.jpg", b""),
            ("a/._a.jpg", b"macOS"),
            ("__MACOSX/a.jpg", b"macOS"),
            (".cache/a.jpg", b""),
            ("__meta__.json", b"{}"),
            ("README", b"no ending"),
            special("l.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            special("h.jpg", tarfile.LNKTYPE, "../../etc/passwd"),
            special("null.jpg", tarfile.CHRTYPE),
            special("pipe.jpg", tarfile.FIFOTYPE),
            ("./a.jpg", b"image"),
        ],
    )
    assert rows_of(path) == [{"__key__": "./a", "__url__": "00000.tar", "image_path": "./a.jpg"}]
    assert column(path, "image_path") == [b"image"]


def test_names_that_lead_out_of_the_tar_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    path = saved(tmp_path, [("../secret.jpg", b"inside"), ("/etc/passwd.jpg", b"inside, too")])
    assert column(path, "image_path") == [b"inside", b"inside, too"]
    assert [row["image_path"] for row in rows_of(path)] == ["../secret.jpg", "/etc/passwd.jpg"]
    assert sorted(child.name for child in tmp_path.iterdir()) == ["00000.jsonl", "00000.tar", "secret.jpg"]


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_names_in_any_script_are_read(tmp_path: Path, tar_format: int) -> None:
    names = ["d" * 90 + "/" + "n" * 200, "写真/é" * 40, "short"]
    (tmp_path / "t.tar").write_bytes(tar_bytes([(f"{name}.jpg", name.encode()) for name in names], tar_format))
    assert column(tmp_path / "t.tar", "__key__") == names
    assert column(tmp_path / "t.tar", "image_path") == [name.encode() for name in names]


def test_a_name_that_is_not_utf8_is_spelt_out(tmp_path: Path) -> None:
    content = tar_bytes([("caf_.jpg", b"1"), ("caf-.jpg", b"2")])
    for old, new in ((b"caf_.jpg", b"caf\xe9.jpg"), (b"caf-.jpg", b"caf\xe8.jpg")):
        content = content.replace(old, new)
    blocks = [bytearray(content[start : start + 512]) for start in range(0, len(content), 512)]
    for block in (blocks[0], blocks[2]):
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    (tmp_path / "t.tar").write_bytes(b"".join(blocks))
    assert [row["__key__"] for row in rows_of(tmp_path / "t.tar")] == ["caf\\xe9", "caf\\xe8"]
    rewrite(tmp_path / "t.tar", tmp_path / "t.parquet", {})


@pytest.mark.parametrize(
    ("member", "text", "members"),
    [
        (("a.txt", b"\xff\xfe"), UnreadableValue, ["a.txt"]),
        (("a.txt", b"x" * 2000), UnreadableValue, ["a.txt"]),
        (("a.json", b'{"caption": "x"'), type(None), ["a.json"]),
        (("a.json", b"[1]"), type(None), ["a.json"]),
        (("a.json", b"\xff"), type(None), ["a.json"]),
        (("a.json", b'{"caption": 1, "text": null}'), type(None), None),
        (("a.json", b'{"a":' * 400 + b"1" + b"}" * 400), type(None), ["a.json"]),
        (("a.json", b"[" * 1000), type(None), ["a.json"]),
    ],
)
def test_a_row_with_a_bad_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: Member, text: type, members: list[str] | None
) -> None:
    monkeypatch.setattr(text_files, "MAX_ROW_LENGTH", 1000)
    path = saved(tmp_path, [("a.jpg", b"image"), member, ("b.jpg", b"")])
    assert [type(value) for value in column(path, "text")] == [text, type(None)]
    assert column(path, "image_path") == [b"image", b""]
    row, _ = rows_of(path)
    assert row.get("members") == members
    assert "text" not in row


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = saved(tmp_path, [("a.txt", b"\xef\xbb\xbfcat"), ("b.json", b'\xef\xbb\xbf {"text": "dog"}')])
    assert column(path, "text") == ["cat", "dog"]


def test_an_image_that_is_too_large_for_any_row_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_ROW_LENGTH", 1000)
    path = saved(tmp_path, [("a.jpg", b"x" * 1001), ("b.jpg", b"x" * 1000)])
    large, small = column(path, "image_path")
    assert isinstance(large, UnreadableValue)
    assert small == b"x" * 1000
    assert [row["image_path"] for row in rows_of(path)] == ["a.jpg", "b.jpg"]


def test_chunks_end_early_where_images_are_large_and_hold_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "CHUNK_BYTES", 1_000_000)
    path = saved(tmp_path, [(f"{number}.jpg", b"x" * 400_000) for number in range(30)])
    tracemalloc.start()
    try:
        with open_table(path, TAR) as reader:
            chunks = list(reader.chunks(100))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(chunk) for chunk in chunks] == [3] * 10
    assert [chunk.first_row for chunk in chunks] == list(range(0, 30, 3))
    assert all(chunk.size >= 1_200_000 for chunk in chunks)
    assert peak < 400_000


def test_a_tar_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    content = tar_bytes([("first.jpg", b"x" * 600), ("second.jpg", b"y" * 600)])
    path = tmp_path / "t.tar"
    for length in range(0, 3 * 512 * 2, 100):  # what follows is the end marker and the padding
        path.write_bytes(content[:length])
        assert "cut off" in refusal(path)
    path.write_bytes(content[:1000])
    assert refusal(path) == "The tar is cut off inside of the member 'first.jpg'. Write or upload it again."
    path.write_bytes(content[: 3 * 512])
    assert refusal(path).startswith("The tar is cut off behind the member 'first.jpg': it has no end marker.")
    path.write_bytes(content[: 6 * 512 + 512])  # one block of zeros is an end marker
    assert len(rows_of(path)) == 2


def checksummed(block: bytes) -> bytes:
    return block[:148] + b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:512])) + block[156:]


GOOD = tar_bytes([("a.jpg", b"image")])
HEADER = GOOD[:512]


def extended(text: bytes) -> bytes:
    """A tar whose first member has an extended header with this text."""
    header = checksummed(HEADER[:124] + b"%011o\0" % len(text) + HEADER[136:156] + b"x" + HEADER[157:])
    return header + text + b"\0" * (-len(text) % 512) + GOOD


DAMAGED = [
    (b"not a tar at all" * 100, "Behind its beginning the file is not a tar"),
    (gzip.compress(GOOD, mtime=0) + b"x" * 1024, "is gzip-compressed; unpack it once."),
    (GOOD[:1024] + b"\x01" * 512, "Behind the member 'a.jpg' the file is not a tar (invalid header)"),
    (HEADER[:1] + b"b" + GOOD[2:], "Behind its beginning the file is not a tar (bad checksum)"),
    (checksummed(HEADER[:124] + b"\x80" + b"\xff" * 11 + HEADER[136:]) + GOOD[512:], "cut off inside of the member"),
    (checksummed(HEADER[:124] + b"\xff" * 11 + b"\0" + HEADER[136:]) + GOOD[512:], "(a size below zero)"),
    (checksummed(HEADER[:124] + b"notoctal\0\0\0\0" + HEADER[136:]) + GOOD[512:], "the file is not a tar"),
    (checksummed(HEADER[:156] + b"S" + HEADER[157:]) + GOOD[512:], "stored with holes"),
    (extended(b"nonsense"), "(an extended header without records)"),
    (extended(b"99 path=x\n"), "(an extended header without records)"),
    (extended(b"0 path=x\n"), "(an extended header without records)"),
    (extended(b"x" * 2_097_152), "(an extended header of 2,097,152 bytes)"),
    (extended(b"16 size=-100000\n"), "(a size that is not a number)"),
    (extended(b"22 GNU.sparse.major=1\n"), "stored with holes"),
    (extended(b"28 size=9999999999999999999\n"), "cut off inside of the member 'a.jpg'"),
    (checksummed(HEADER[:156] + b"L" + HEADER[157:]) + b"x" * 100, "cut off"),
    (GOOD + GOOD, "There is more behind the end of the tar, which is behind the member 'a.jpg': two tars"),
    (tar_bytes([("a.jpg", b"1"), ("a.JPG", b"2")]), "two files 'a.JPG' in one row: 'a.jpg' came before"),
]


@pytest.mark.parametrize(("content", "problem"), DAMAGED)
def test_a_damaged_tar_is_named_in_words(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "t.tar").write_bytes(content)
    assert problem in refusal(tmp_path / "t.tar")


def test_a_row_of_endless_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_operator.tables.tar.reader.MAX_MEMBERS", 50)
    assert rows_of(saved(tmp_path, [(f"a.{n}", b"") for n in range(50)]))[0]["__key__"] == "a"
    assert refusal(saved(tmp_path, [(f"a.{n}", b"") for n in range(51)])).startswith("The row 'a' has more than 50")


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_tar_with_any_bytes_changed_is_read_or_refused_in_words(tmp_path: Path, data: st.DataObject) -> None:
    tar_format = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    content = bytearray(tar_bytes([("é" * 80 + ".jpg", b"image"), ("a.json", b'{"text": "x"}')], tar_format))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.sampled_from([0, 124, 156, 512, 1024, 1536, 2048])) + data.draw(st.integers(0, 40))
        content[start : start + 1] = data.draw(st.binary(max_size=2))
    for start in range(0, len(content) - 512, 512):
        if content[start + 257 : start + 262] == b"ustar" and data.draw(st.booleans()):
            content[start : start + 512] = checksummed(bytes(content[start : start + 512]))
    (tmp_path / "t.tar").write_bytes(content)
    with suppress(JobError):
        with open_table(tmp_path / "t.tar", TAR) as reader:
            for chunk in reader.chunks(10):
                for name in COLUMNS:
                    assert len(chunk.column(name)) == len(chunk)
        rewrite(tmp_path / "t.tar", tmp_path / "out.parquet", {})
