"""Rounds in which contestants take turns: A B A B A B."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

MeasuredT = TypeVar("MeasuredT")


def alternate(contestants: Mapping[str, Callable[[], MeasuredT]], rounds: int) -> dict[str, list[MeasuredT]]:
    """Let each contestant run once a round, in turn; return what each measured, by round.

    Whatever slows the machine down for a while slows all of them, and none is measured all at the start or at the end.
    """
    measured: dict[str, list[MeasuredT]] = {name: [] for name in contestants}
    for number in range(1, rounds + 1):
        for name, run in contestants.items():
            print(f"  round {number} of {rounds}: {name}", flush=True)
            measured[name].append(run())
    return measured
