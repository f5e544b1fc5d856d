"""Every format has the same doors, and what one of them needs is not imported for the others."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.tables import AddedType, FileType, TableFormat, create_selection, create_table, open_table
from clip_operator.tables.formats import FORMATS


def table_of(table_format: TableFormat, folder: Path) -> Path:
    """Write a table of the two rows "a" and "b", which are texts."""
    path = folder / f"t.{table_format}"
    texts = {
        TableFormat.JSONL: '{"text": "a"}\n{"text": "b"}\n',
        TableFormat.JSON: '[{"text": "a"}, {"text": "b"}]',
        TableFormat.CSV: "text\na\nb\n",
        TableFormat.TSV: "text\na\nb\n",
    }
    if table_format in texts:
        path.write_text(texts[table_format])
    elif table_format is TableFormat.PARQUET:
        pq.write_table(pa.table({"text": ["a", "b"]}), path)
    else:
        with tarfile.open(path, "w") as tar:
            for text in "ab":
                member = tarfile.TarInfo(f"{text}.txt")
                member.size = 1
                tar.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("table_format", TableFormat)
def test_every_format_reads_selects_and_but_for_tars_writes(tmp_path: Path, table_format: TableFormat) -> None:
    file_type = FileType(table_format)
    table = open_table(table_of(table_format, tmp_path), file_type, ["text"])
    (chunk,) = table.chunks(10)
    last = chunk.select([False, True])
    assert (chunk.column("text"), last.column("text"), len(last)) == (["a", "b"], ["b"], 1)
    if table_format is TableFormat.TAR:
        with pytest.raises(TypeError, match="what no step is written as"):
            create_selection(tmp_path / "some", table)
        return
    with create_table(tmp_path / "all", file_type, table, {"score": AddedType.STRING}) as writer:
        writer.write(chunk, {"score": ["x", None]})
    with create_selection(tmp_path / "some", table) as writer:
        writer.write(last, {})
    for name, texts in (("all", ["a", "b"]), ("some", ["b"])):
        (chunk,) = open_table(tmp_path / name, file_type).chunks(10)
        assert chunk.column("text") == texts


def test_every_format_is_in_the_one_table_of_them() -> None:
    assert list(FORMATS) == list(TableFormat)


def test_only_parquet_imports_pyarrow(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from clip_operator.tables import create_selection, create_table, file_type_of, open_table

lines = file_type_of("jsonl")
for path in map(Path, sys.argv[1:]):
    with open_table(path, file_type_of(path.name)) as table:
        with create_table(path.with_suffix(".lines"), lines, table, {}) as writer:
            for chunk in table.chunks(1):
                writer.write(chunk, {})
        if path.suffix != ".tar":
            create_selection(path.with_suffix(".some"), table).close()
sys.exit("pyarrow" in sys.modules or "pandas" in sys.modules)
"""
    paths = [table_of(table_format, tmp_path) for table_format in TableFormat if table_format != TableFormat.PARQUET]
    assert subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=False).returncode == 0
