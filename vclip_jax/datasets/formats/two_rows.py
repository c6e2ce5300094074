"""Column names in two rows, such as 左眼 above the columns 图像 and 诊断.

编号 | 左眼 |      | 右眼 |               编号 | 左眼 图像 | 左眼 诊断 | 右眼 图像 | 右眼 诊断
     | 图像 | 诊断 | 图像 | 诊断
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from vclip_jax.files.errors import few

_TRIED: Final = 5
"""Rows at the top that may hold names if no name is known."""
Cells = Sequence[Sequence[str]]


def join(
    cells: Cells, row: int, find: Callable[[Sequence[str]], int], merged: Mapping[int, set[int]]
) -> tuple[int, list[str], str]:
    """Join column names that stand in two rows.

    Args:
        cells: the cells of a table.
        row: the row that is taken for the names, from 0.
        find: a function of names that returns the index of the column of photographs, or -1.
        merged: row -> the columns whose cell is merged with the cell to the left.

    Returns:
        The last row of names, the names, and a sentence if the names were in two rows.

    Raises:
        ValueError: one line: the names are in two rows, and the rows do not clearly go together.
    """
    names = list(cells[row])
    for upper in _candidates(cells, row, find):
        joined, clear = _joined(cells[upper], cells[upper + 1], merged.get(upper, set()))
        if clear and (find(joined) >= 0 or find(names) >= 0):
            rows = {*cells[upper], *cells[upper + 1]}
            such = next((name for name in joined if name not in rows), joined[0])
            said = (
                f"rows {upper + 1} and {upper + 2} are read as one row of names, such as {such!r}."
            )
            return upper + 1, joined, said
        if find(names) >= 0:
            raise ValueError(
                f"rows {upper + 1} and {upper + 2} both look like names "
                f"({few(filter(None, cells[upper]), 4)}; {few(filter(None, cells[upper + 1]), 4)}) "
                "and do not clearly go together: write one row of names, each of them once"
            )
    return row, names, ""


def _candidates(cells: Cells, row: int, find: Callable[[Sequence[str]], int]) -> Iterator[int]:
    """Yield the upper rows of pairs of rows that may hold names."""
    names = cells[row]
    filled = [name for name in names if name]
    image = find(names)
    if image < 0:
        yield from range(min(_TRIED, len(cells) - 1))
    elif len(set(filled)) < len(filled):
        if row and sum(map(bool, cells[row - 1])) > 1:  # a single cell is a title
            yield row - 1
    elif row + 1 < len(cells):
        below = cells[row + 1]
        # A row of values would have a photograph there.
        if image >= len(below) or below[image] in ("", names[image]):
            width = range(len(below))
            if any(below[i] and not (i < len(names) and names[i]) for i in width):
                yield row


def _joined(upper: Sequence[str], lower: Sequence[str], merged: set[int]) -> tuple[list[str], bool]:
    """Return the names, and whether the rows clearly go together.

    They do if each lower name has its own upper cell or one that is merged with it, or if the lower
    name repeats below another upper name.
    """
    counts = Counter(lower)
    names: list[str] = []
    clear, above = True, ""
    for index in range(max(len(upper), len(lower))):
        over = upper[index] if index < len(upper) else ""
        name = lower[index] if index < len(lower) else ""
        if over:
            above = over
        elif name and above and index not in merged:
            clear = clear and counts[name] > 1
        if name and above and name != above:
            names.append(f"{above} {name}")
        else:
            names.append(name or over)
        if not name or name == above:
            above = ""  # a name of its own, over no others
    filled = [name for name in names if name]
    return names, clear and len(set(filled)) == len(filled) and names != list(upper)
