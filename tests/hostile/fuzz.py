"""Throws damaged files at the image decoder or the table readers: ``python -m tests.hostile.fuzz images --seconds 60``.

Every file is read in a child process with bounded memory and time, so that a crash, a hang or an explosion in a C
library shows. What is found is written into a folder, and the exit status is 1. The same seed tries the same files.
What libtiff has to say on stderr is of no interest.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from clip_operator.errors import JobError, RowError
from clip_operator.images.decoding import load_rgb, open_image
from clip_operator.tables import AddedType, create_table, file_type_of, open_table
from tests.hostile.image_files import bombs, whole_files
from tests.hostile.table_files import kept_tables, odd_columns, parquet, refused_tables

_FILES_A_CHILD = 200
_SECONDS_A_FILE = 5
_LONGEST_START_BYTES = 20_000
_ADDRESS_SPACE_BYTES = 6 << 30
_INTERESTING = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\0",
    b"\n",
    b'"',
    b"{",
)


def mutated(corpus: list[bytes], draw: random.Random) -> bytes:
    """Return a file of the corpus after a few random changes: bytes, blocks, cuts, and pieces of other files."""
    data = bytearray(draw.choice(corpus))
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(data) + 1)
        length = draw.choice((1, 1, 2, 4, 16, 100))
        match draw.randrange(7):
            case 0:
                data[at : at + 1] = draw.randbytes(1)
            case 1 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 2:
                shard = draw.choice(_INTERESTING)
                data[at : at + len(shard)] = shard
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
            case 5:
                other = draw.choice(corpus)
                start = draw.randrange(len(other) + 1)
                data[at : at + length] = other[start : start + length]
            case _:
                data[:] = data[:at] if draw.random() < 0.3 else data
    return bytes(data)


def decode_image(data: bytes, name: str) -> None:
    """Decode an image file as the loader does."""
    reduced = None if len(data) % 2 else 8
    load_rgb(open_image(data, 20_000_000, reduced)[0])


def rewrite_table(data: bytes, name: str) -> None:
    """Read a table and write it again with a column more."""
    source, target = Path(name), Path(f"out-{name}")
    source.write_bytes(data)
    with open_table(source, file_type_of(name), ["image_path", "text"]) as table:
        rows = table.scan().rows
        with create_table(target, file_type_of(name), table, {"clip_score": AddedType.FLOAT64}) as writer:
            for chunk in table.chunks(256):
                rows -= len(chunk)
                chunk.column("image_path"), chunk.column("text")
                writer.write(chunk, {"clip_score": [0.5] * len(chunk)})
    if rows:
        raise AssertionError(f"the scan counted {rows} rows more than were read")


def fuzz(
    starts: dict[str, list[bytes]], read: Callable[[bytes, str], None], seconds: float, seed: int, found: Path
) -> int:
    """Read mutated files for a while; return the number of findings, each of which is saved in ``found``.

    :param starts: files to start from, by the name under which their mutations are read.
    :param read: what must end in silence, or in an error of this package.
    """
    end, child, findings = time.monotonic() + seconds, 0, 0
    last = Path("last").absolute()
    while time.monotonic() < end:
        draw = random.Random(f"{seed}/{child}")
        name = draw.choice(sorted(starts))
        pid = os.fork()
        if pid == 0:
            _child(starts[name], read, name, draw, last)
        status = os.waitpid(pid, 0)[1]
        if status:
            findings += 1
            told = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "exception"
            found.mkdir(exist_ok=True)
            saved = found / f"{seed}-{child}-{name}"
            saved.write_bytes(last.read_bytes())
            _say(f"{told}: {saved}")
        child += 1
    _say(f"{child * _FILES_A_CHILD:,} files, fewer by those that a child did not come to; {findings} findings")
    return findings


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _child(corpus: list[bytes], read: Callable[[bytes, str], None], name: str, draw: random.Random, last: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        for _ in range(_FILES_A_CHILD):
            data = mutated(corpus, draw)
            last.write_bytes(data)
            signal.setitimer(signal.ITIMER_REAL, _SECONDS_A_FILE)
            try:
                read(data, name)
            except (RowError, JobError):
                continue
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def corpora(what: str) -> dict[str, list[bytes]]:
    """Return small files to start from, by the name under which their mutations are read."""
    if what == "images":
        return {"image": [*whole_files().values(), *bombs().values()]}
    tables = {**kept_tables(), **{name: data for name, (data, _) in refused_tables().items()}}
    tables["odd.parquet"] = parquet(odd_columns())
    tables["plain.parquet"] = parquet({"x": [1, 2]}, compression="none", use_dictionary=False)
    found: dict[str, list[bytes]] = {}
    for name, data in tables.items():
        if len(data) < _LONGEST_START_BYTES:
            found.setdefault("in" + name[name.index(".") :], []).append(data)
    return found


def main() -> int:
    """Do as the command line says; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["images", "tables"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="what a table's ending must be, as in .parquet")
    parser.add_argument("--found", type=Path, default=Path(gettempdir()) / "clip-fuzz-findings", help="folder")
    arguments = parser.parse_args()
    chosen = {name: files for name, files in corpora(arguments.what).items() if name.endswith(arguments.only)}
    read = decode_image if arguments.what == "images" else rewrite_table
    found = arguments.found.absolute()
    with TemporaryDirectory(prefix="clip-fuzz-") as folder:
        os.chdir(folder)
        return 1 if fuzz(chosen, read, arguments.seconds, arguments.seed, found) else 0


if __name__ == "__main__":
    sys.exit(main())
