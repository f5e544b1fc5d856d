"""What a benchmark found: for a person as tables and goals, for programs as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.table import Table as RichTable

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Table:
    """Figures for a person to read, cell by cell as text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rendered(self, markdown: bool = False) -> RichTable:
        """Return it for a terminal, or as Markdown."""
        table = RichTable(*self.columns, box=box.MARKDOWN if markdown else box.SIMPLE_HEAD)
        for number, column in enumerate(table.columns):
            column.no_wrap = markdown
            column.justify = "left" if number == 0 else "right"
        for row in self.rows:
            table.add_row(*row)
        return table


@dataclass(frozen=True)
class Goal:
    """A bound that a measured value should keep.

    :param measured: None where it could not be measured.
    """

    what: str
    measured: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        """``met``, ``MISSED`` or ``not measured``."""
        if self.measured is None:
            return NOT_MEASURED
        low = self.at_least is None or self.measured >= self.at_least
        high = self.at_most is None or self.measured <= self.at_most
        return "met" if low and high else "MISSED"

    @property
    def bound(self) -> str:
        """The goal in words."""
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"


@dataclass
class Record:
    """What one benchmark measured.

    :param name: the benchmark.
    :param settings: sizes and options, as JSON values.
    :param measurements: every figure, unrounded, as JSON values.
    :param not_measured: what could not be measured here, and why.
    """

    name: str
    settings: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    measurements: dict[str, Any] = field(default_factory=dict)
    not_measured: list[str] = field(default_factory=list)

    def as_json(self, machine: dict[str, Any], command: str) -> dict[str, Any]:
        """Return ``{name, machine, command, settings, results}``."""
        results = {
            "tables": [asdict(table) for table in self.tables],
            "goals": [{**asdict(goal), "verdict": goal.verdict} for goal in self.goals],
            "measurements": self.measurements,
            "not_measured": self.not_measured,
        }
        return {
            "name": self.name,
            "machine": machine,
            "command": command,
            "settings": self.settings,
            "results": results,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Record:
        """Return the record that :meth:`as_json` wrote."""
        results = document["results"]
        goals = [{name: value for name, value in goal.items() if name != "verdict"} for goal in results["goals"]]
        return cls(
            name=document["name"],
            settings=document["settings"],
            tables=[Table(**table) for table in results["tables"]],
            goals=[Goal(**goal) for goal in goals],
            measurements=results["measurements"],
            not_measured=results["not_measured"],
        )


def goals_table(goals: Sequence[Goal]) -> Table:
    """Return the goals and what became of them."""
    rows = [
        [goal.what, goal.bound, NOT_MEASURED if goal.measured is None else f"{goal.measured:.3g}", goal.verdict]
        for goal in goals
    ]
    return Table("Goals", ["goal", "wanted", "measured", "verdict"], rows)


def median(values: Sequence[float]) -> float:
    """Return the median of some rounds."""
    return statistics.median(values)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the median of some rounds, with the smallest and the largest: ``41.2 (40.1 to 42.0)``."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratios(values: Sequence[float], references: Sequence[float]) -> list[float]:
    """Return each round's value over the same round's reference, so that a machine that drifts bears on neither."""
    return [value / reference for value, reference in zip(values, references, strict=True)]
