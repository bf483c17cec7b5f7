"""Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(name: str, columns: Sequence[Any], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table whose first column names the rows and is aligned to the left.

    Args:
        name: of the first column.
        columns: names of the others.
        rows: the name and the cells of each.
    """
    lines = [_row(name, columns), "|---" + "|---:" * len(columns) + "|"]
    return "\n".join([*lines, *(_row(first, values) for first, values in rows)])


def _row(name: str, values: Sequence[Any]) -> str:
    return f"| {name} | " + " | ".join(str(value) for value in values) + " |"
