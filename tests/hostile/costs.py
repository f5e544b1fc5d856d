"""Says what decoding costly image files takes: ``python -m tests.hostile.costs``, ``--limits`` for the worst of each.

Each is decoded in a process of its own, in 60 seconds of a processor and 4 GiB of address space, as the loader does but
without the limits of its workers.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

from clip_operator.errors import RowError
from clip_operator.images.decoding import decode_in_one_thread, load_rgb, open_image
from tests.hostile.costly import AT_THE_LIMITS, LARGE, SLOW

_SECONDS = 60
_ADDRESS_SPACE_BYTES = 4 << 30
_MAX_PIXELS = 178_956_970


def decode(path: Path) -> None:
    """Decode a file within the limits above, and print what came of it."""
    decode_in_one_thread()
    data = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    stage = "open"
    try:
        image = open_image(data, _MAX_PIXELS)[0]
        stage = "load"
        image = load_rgb(image)
    except RowError as error:
        _say(f"{stage}: {error.reason}: {error.detail}"[:150])
    else:
        _say(f"{image.width:,} x {image.height:,} pixels")


def measure(name: str, data: bytes) -> None:
    """Decode a file in a process of its own, and print what that took."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = [sys.executable, "-m", "tests.hostile.costs", "--decode", file.name]
        _say(f"{name}: {len(data):,} bytes")
        # Not subprocess, which does not tell what the one process has used; the memory is that of the largest so far.
        pid = os.posix_spawn(sys.executable, command, os.environ)
        _, status, used = os.wait4(pid, 0)
    ended = f", ended by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else ""
    _say(f"    {used.ru_utime + used.ru_stime:.1f} s of a processor, {used.ru_maxrss >> 10:,} MiB of memory{ended}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="which files; all by default")
    parser.add_argument("--limits", action="store_true", help="the worst that the limits let in")
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.decode is not None:
        decode(arguments.decode)
        return
    builders = AT_THE_LIMITS if arguments.limits else SLOW | LARGE
    for name in arguments.names or builders:
        measure(name, builders[name]())


if __name__ == "__main__":
    main()
