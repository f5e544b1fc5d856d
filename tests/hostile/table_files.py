"""Tables as careless programs and hostile people write them: those that must be kept, and those that must be refused.

In each table that is kept, every row has the image and the caption of :data:`ROW`, so that all have one score.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import gzip
import io
import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

ROW = {"image_path": "good.png", "text": "a red circle"}

_OBJECT = b'{"image_path": "good.png", "text": "a red circle"}'
_OPEN = _OBJECT[:-1]
_HEADER = b"image_path,text"
_CELLS = b"good.png,a red circle"
_MARK = b"\xef\xbb\xbf"
_MB = 1 << 20


def kept_tables() -> dict[str, bytes]:
    """Return text tables by file name; without their added column, outputs must be these very bytes."""
    values = b', "%s": %s'
    odd_values = [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-1E-999",
        b"9" * 400,
        b"-" + b"7" * 5000,
        b'"\\ud83d"',
        b'"\\u0000\\\\"',
        '"é\u2028\x7f\U0001f468\u200d\U0001f469 \u05d0\u202e\u0301"'.encode(),
        b'{"clip_score": [{}, [], ""]}',
        b"[" * 500 + b"]" * 500,
    ]
    objects = [_OPEN + values % (b"x", value) + b"}" for value in odd_values]
    objects += [_OPEN + b', "x": 1, "x": 2, "": 3}', b'{"text": 0, ' + _OBJECT[1:], b"\t" + _OBJECT + b" "]
    long_line = _OPEN + values % (b"long", b'"' + b"x" * (50 * _MB) + b'"') + b"}"
    return {
        "odd.jsonl": b"\n".join(objects),
        "mark.jsonl": _MARK + _OBJECT + b"\n",
        "crlf.jsonl": b"\r\n".join([*objects, b""]),
        "long.jsonl": _OBJECT + b"\n" + long_line + b"\n" + _OBJECT,
        "members.jsonl.gz": gzip.compress(_OBJECT + b"\n" + _OPEN) + gzip.compress(b"}\n") + bytes(100),
        "odd.json": b"[" + b",\r\n ".join(objects) + b"]",
        "mark.json": _MARK + b"\n[ " + _OBJECT + b"]\r\n\t",
        "carriage.json": b"[\r" + _OBJECT + b"\r,\r" + _OBJECT + b"\r]\r",
        "long.json": b"[" + _OBJECT + b" " * (5 * _MB) + b"," + long_line + b"]",
        "quoted.csv": _MARK
        + b'"image_path",text,"x\r\ny"\r\ngood.png,"a red circle","1\r\n2""\n"\r\n'
        + _CELLS
        + b',"\0"',
        "spaces.csv": _HEADER
        + b",x\n"
        + _CELLS
        + ", \u00a0\u2028\x0b\x1c\x85\ufeff\n".encode()
        + _CELLS
        + b",\ta\"b'c",
        "twice.csv": _HEADER + b",x,x,\n" + _CELLS + b",1,2,3\n",
        "wide.csv": _HEADER + b"".join(b",c%d" % n for n in range(5000)) + b"\n" + _CELLS + b"," * 5000 + b"\n",
        "long.csv": _HEADER + b",x\n" + _CELLS + b',"' + b'""\n' * 2_000_000 + b'"\n',
        "members.csv.gz": gzip.compress(_HEADER + b"\n" + _CELLS) + gzip.compress(b"\n" + _CELLS),
    }


def changed_tables() -> dict[str, tuple[bytes, bytes]]:
    """Return text tables that are not wholly kept, with what they count as: blank lines are no rows."""
    return {
        "blank.jsonl": (b"\n \r\n\t\n" + _OBJECT + b"\n\n\n" + _OBJECT + b"\n\n", _OBJECT + b"\n" + _OBJECT + b"\n"),
        "blank.csv": (b"\n" + _HEADER + b"\n\n\r\n" + _CELLS + b"\n\n", _HEADER + b"\n" + _CELLS + b"\n"),
        "short.csv": (_HEADER + b",x,y\n" + _CELLS + b"\n", _HEADER + b",x,y\n" + _CELLS + b",,\n"),
    }


def refused_tables() -> dict[str, tuple[bytes, str]]:
    """Return tables by file name, and a pattern of what is said of each, beside the name."""
    row = _OBJECT + b"\n"
    deep = b"[" * 100_000
    packed = gzip.compress(row * 1000)
    refused = {
        "carriage.jsonl": (row.replace(b"\n", b"\r") * 2, r"line 1 is not valid JSON \(Extra data"),
        "second-mark.jsonl": (row + _MARK + row, "line 2 is not valid JSON"),
        "utf16.jsonl": (row.decode().encode("utf-16"), r"line 1 is not UTF-8 .*byte 0xff"),
        "latin.jsonl": (row + b'{"text": "\xe9"}\n', r"line 2 is not UTF-8 .*byte 0xe9"),
        "surrogate.jsonl": (row + b'{"text": "\xed\xa0\xbd"}', r"line 2 is not UTF-8"),
        "nul.jsonl": (row + b"\0\n", "line 2 is not valid JSON"),
        "control.jsonl": (row + b'{"text": "\0"}\n', r"line 2 .*Invalid control character at character 11"),
        "deep.jsonl": (row + b'{"x": ' + deep, "line 2 is nested too deeply"),
        "deep-objects.jsonl": (row + b'{"x":' * 100_000, "line 2 is nested too deeply"),
        "many.jsonl": (row + b'{"x": [' + b"[]," * 4_000_001 + b"[]]}", "line 2 has more than 4,000,000 values"),
        "cut.jsonl": (row + _OPEN, r"line 2 is not valid JSON \(Expecting ',' delimiter"),
        "cut.jsonl.gz": (packed[:-9], "gzip data ends too early"),
        "checksum.jsonl.gz": (packed[:-8] + bytes(8), "not whole gzip data .*CRC"),
        "rest.jsonl.gz": (packed + b"rest", "not whole gzip data"),
        "head.jsonl.gz": (packed[:5], "gzip data ends too early"),
        "damaged.jsonl.gz": (packed[:20] + b"\xff" * 30 + packed[50:], "gzip data is damaged"),
        "bomb.jsonl.gz": (gzip_bomb(b"", b"x", 1000), "line 1 is larger than 256 MiB"),
        "deep.json": (b"[{}," + deep, "element 2 is nested too deeply"),
        "cut.json": (b"[" + _OBJECT + b"," + _OPEN, "element 2 is not valid JSON"),
        "utf16.json": ((b"[" + row + b"]").decode().encode("utf-16"), "line 1 is not UTF-8"),
        "spaces.json.gz": (gzip_bomb(b"[{},", b" ", 300), "element 1 is larger than 256 MiB"),
        "bomb.json.gz": (gzip_bomb(b'[{}, {"x": [[]', b",[]", 1000), "element 2 has more than 4,000,000 values"),
        "string.json.gz": (gzip_bomb(b'[{}, {"x": "', b"x", 300), "element 2 is larger than 256 MiB"),
        "carriage.csv": (_HEADER + b"\r" + _CELLS + b"\r", "starts in line 1 .*carriage return"),
        "ragged.csv": (_HEADER + b"\n" + _CELLS + b"\n" + _CELLS + b",x\n", "line 3 has 3 cells, but the header has 2"),
        "open.csv": (_HEADER + b'\ngood.png,"a red\ncircle\n', "starts in line 2 .*a quote is opened and never closed"),
        "latin.csv": (_HEADER + b"\ngood.png,\xe9\n", "line 2 is not UTF-8"),
        "utf16.csv": (
            (_HEADER + b"\n").decode().encode("utf-16-le"),
            "Is it UTF-16 without a byte order mark. Then set encoding to utf-16-le",
        ),
        "twice.csv": (b"text,image_path,text\na,b,c\n", "names the column 'text' 2 times"),
        "cells.csv": (_HEADER + b"\n" + b"," * 4_000_000 + b"\n", "starts in line 2 has more than 4,000,000 values"),
        "lines.csv.gz": (gzip_bomb(_HEADER + b'\n"', b"\n", 1000), "starts in line 2 has more than 4,000,000 values"),
        "bomb.csv.gz": (gzip_bomb(_HEADER + b'\n"', b"x", 1000), "line 2 is larger than 256 MiB"),
    }
    return {**refused, **_refused_parquet()}


def gzip_bomb(start: bytes, repeated: bytes, mebibytes: int) -> bytes:
    """Return gzip data a thousandth as large as what it holds: ``start``, and that many MiB of ``repeated``."""
    block = gzip.compress(repeated * (_MB // len(repeated)), mtime=0)  # gzip data may follow each other
    return gzip.compress(start, mtime=0) + block * mebibytes


def parquet(columns: dict[str, Any], rows: int = 2, **options: Any) -> bytes:
    """Return a Parquet file of as many scored rows, with further columns."""
    table = pa.table({**{name: [value] * rows for name, value in ROW.items()}, **columns})
    return written(table, **options)


def written(table: pa.Table, **options: Any) -> bytes:
    """Return a table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def not_utf8(rows: int = 2) -> pa.Array:
    """Return a column of strings that says that they are UTF-8, and lies."""
    text = b"\xff\xfe"
    offsets = struct.pack(f"<{rows + 1}i", *(len(text) * row for row in range(rows + 1)))
    return pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(text * rows)])


def same_name_twice(rows: int = 2) -> pa.Array:
    """Return a column of structs with two fields of one name."""
    return pa.StructArray.from_arrays([pa.array(["a"] * rows), pa.array(["b"] * rows)], ["path", "path"])


def odd_columns() -> dict[str, Any]:
    """Return columns of two rows, of types and values that are easy to alter."""
    return {
        "nulls": pa.nulls(2),
        "not utf-8": not_utf8(),
        "dictionary": pa.array(["x", None]).dictionary_encode(),
        "list": [[1, None], None],
        "struct": [{"a.b": [{"c": b"\0"}]}, None],
        "map": pa.array([[("k", 1), ("k", 2)], []], pa.map_(pa.string(), pa.int8())),
        "decimal": [decimal.Decimal("1.10"), decimal.Decimal("-99999999999999999999.99")],
        "zone": pa.array([0, 2**62], pa.timestamp("us", "Mars/Phobos")),
        "day": pa.array([-(2**31), 2**31 - 1], pa.date32()),
        "time": [datetime.time(23, 59, 59, 999999), None],
        "half": pa.array([-0.0, float("-inf")], pa.float16()),
        "big": pa.array([0, 2**64 - 1], pa.uint64()),
        "same name": same_name_twice(),
    }


def shared_value_bomb() -> bytes:
    """Return a Parquet file of some 1,000 bytes with 256 rows, all of which share one caption of 8 MiB."""
    text = pa.DictionaryArray.from_arrays(
        pa.array([0] * 256, pa.int32()), pa.array(["a red circle " + "x" * (8 * _MB)])
    )
    return parquet(
        {"text": text},
        rows=256,
        compression="zstd",
        store_schema=False,
        dictionary_pagesize_limit=1 << 30,
        write_statistics=False,
    )


def encrypted(plain_footer: bool) -> bytes:
    """Return a Parquet file whose column ``text``, and with it the footer unless plain, can be read with a key only."""

    keys = {"wrap_key": lambda _self, key, _name: base64.b64encode(key), "unwrap_key": lambda *_: b""}
    factory = pe.CryptoFactory(lambda _configuration: type("Keys", (pe.KmsClient,), keys)())
    how = pe.EncryptionConfiguration(footer_key="f", column_keys={"c": ["text"]}, plaintext_footer=plain_footer)
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), how)
    return written(pa.table({name: [value] for name, value in ROW.items()}), encryption_properties=properties)


def _refused_parquet() -> dict[str, tuple[bytes, str]]:
    whole = parquet({"x": range(1000)}, rows=1000, compression="none", use_dictionary=False)
    footer = struct.unpack("<I", whole[-8:-4])[0]
    deep = pa.int8()
    for _ in range(200):
        deep = pa.list_(deep)
    cannot = "cannot be read as Parquet"
    return {
        "cut.parquet": (whole[:-100], cannot),
        "half.parquet": (whole[: len(whole) // 2], cannot),
        "footer.parquet": (whole[: -8 - footer] + bytes(footer) + whole[-8:], cannot),
        "footer-length.parquet": (whole[:-8] + b"\xff\xff\xff\x7fPAR1", cannot),
        "pages.parquet": (b"PAR1" + bytes(len(whole) - footer - 12) + whole[-8 - footer :], cannot),
        "name.parquet": (parquet({"zzzz": [1, 2]}).replace(b"zzzz", b"z\xff\xfez"), cannot),
        "schema.parquet": (
            written(pa.table({"image_path": ["x"], "text": ["x"]}).replace_schema_metadata({"ARROW:schema": "!"})),
            cannot,
        ),
        "deep.parquet": (parquet({"x": pa.array([None, None], deep)}), f"{cannot} .*nested"),
        "encrypted.parquet": (encrypted(plain_footer=False), "is encrypted"),
        "encrypted-columns.parquet": (encrypted(plain_footer=True), "is encrypted"),
    }
