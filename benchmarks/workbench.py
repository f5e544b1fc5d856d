"""Where a benchmark works: its folders, and whether it only shows that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestant import REPOSITORY

DEFAULT_OUTPUT = REPOSITORY / "build" / "benchmarks"


@dataclass(frozen=True)
class Workbench:
    """What a benchmark is given.

    :param folder: what all benchmarks keep, such as data and environments.
    :param quick: sizes so small that the figures mean nothing.
    """

    folder: Path
    quick: bool

    @property
    def data(self) -> Path:
        """The folder of the drawn pictures and the checkpoints."""
        return self.folder / "data"

    @property
    def scratch(self) -> Path:
        """A folder for files that nobody needs afterwards."""
        folder = self.folder / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, name: str) -> Path:
        """Return the path of a log file."""
        return self.folder / "logs" / f"{name}.log"

    def pick(self, full: int, quick: int) -> int:
        """Return a size for a measurement, or the one for a mere trial."""
        return quick if self.quick else full
