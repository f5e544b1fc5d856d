"""What one cell of a column holds: a value, or several in a list."""

from __future__ import annotations

from collections.abc import Sequence


def held(cell: object) -> Sequence[object]:
    """Return the items of a list, else the cell itself as the only one."""
    return cell if isinstance(cell, list | tuple) else (cell,)


def sole(cells: Sequence[object]) -> list[object]:
    """Return the cells, lists of one as what they hold: there are data sets that write every cell so."""
    return [cell[0] if isinstance(cell, list | tuple) and _is_one(cell) else cell for cell in cells]


def _is_one(items: Sequence[object]) -> bool:
    return len(items) == 1 and not isinstance(items[0], list | tuple)
