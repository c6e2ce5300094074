"""Read an Excel file in a process of its own: PATH CELLS TEXT MEMORY first | named SHEET | all.

The process prints JSON lines. For each sheet: one line with the sheet's name, its merged cells, the
cells whose formula has no stored value, and what is hidden; then lines of up to 1,000 rows each.
`limits.excel` starts it. It imports nothing of this package, so that it starts fast. If the file is
wrong, the reason is the last line of standard error and the exit status is 3.
"""

import contextlib
import json
import posixpath
import re
import resource
import sys
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO
from xml.etree import ElementTree

# Excel stores a formula's result, a text as t="str"; openpyxl and pandas store none.
_FORMULA = re.compile(
    rb'<c (?![^>]*t="str")[^>]*?r="([A-Z]{1,3})(\d{1,7})"[^>]*>'
    rb"<f(?:[^>]*/|[^>]*>[^<]*</f)>\s*(?:<v ?/>|<v></v>)?</c>"
)
_MOST_ROWS = 1 << 20  # Excel's own limit
_HIDDEN_ROW = re.compile(rb'<row (?=[^>]*hidden="(?:1|true)")[^>]*?r="(\d{1,7})"')


def main(path: str, cells: str, text: str, memory: str, which: str, sheet: str = "") -> None:
    """Print the sheets of an Excel file as JSON lines.

    Args:
        path: the file.
        cells: the most cells of all sheets that are read.
        text: the most bytes of JSON.
        memory: the most bytes of address space.
        which: "first" (the first one that is not hidden), "named" or "all".
        sheet: the name, if `which` is "named".
    """
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import python_calamine

    cells_left, text_left = int(cells), int(text)
    try:
        book = python_calamine.load_workbook(path)
        names = book.sheet_names
        if not names:
            _fail("the file has no sheet")
        if which == "named" and sheet not in names:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            there = ", ".join(name[:100] for name in names[:8])
            _fail(f"there is no sheet {sheet!r}, only {there}{more}")
        visible = python_calamine.SheetVisibleEnum.Visible
        hidden = {one.name for one in book.sheets_metadata if one.visible != visible}
        first = [name for name in names if name not in hidden] or names
        for name in {"first": first[:1], "named": [sheet], "all": names}[which]:
            content = book.get_sheet_by_name(name)
            count = content.total_height * content.total_width
            cells_left -= count
            if cells_left < 0 or content.total_height > _MOST_ROWS:
                _fail(
                    f"the sheet has {content.total_height:,} rows and {content.total_width:,} "
                    f"columns, {count:,} cells: delete empty rows and columns, or save it as CSV"
                )
            rows = content.to_python(skip_empty_area=False)
            formulas, hidden_rows = _marks(path, name)
            about = {
                "sheet": name,
                "merged": content.merged_cell_ranges or [],
                "formulas": formulas,
                "hidden": name in hidden,
                "hidden_rows": hidden_rows,
            }
            print(json.dumps(about))
            for start in range(0, len(rows), 1000):
                line = json.dumps(rows[start : start + 1000], default=str)
                text_left -= len(line)
                if text_left < 0:
                    _fail(f"its cells have more than {int(text):,} bytes of text")
                print(line)
    except (
        python_calamine.CalamineError,
        OSError,
        ValueError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        _fail(f"not an Excel file, or a damaged one ({error})")


def _marks(path: str, sheet: str) -> tuple[list[tuple[int, int]], list[int]]:
    """List cells, as (row, column), whose formula has no stored value, and hidden rows, from 0.

    Both are empty for .xls.
    """
    if not zipfile.is_zipfile(path):
        return [], []
    formulas: list[tuple[int, int]] = []
    hidden: list[int] = []
    with zipfile.ZipFile(path) as book:
        try:
            sheets = ElementTree.fromstring(book.read("xl/workbook.xml")).iter()
            links = ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))
            ids = [v for e in sheets if e.get("name") == sheet for k, v in e.items() if "}id" in k]
            target = next(e.get("Target", "") for e in links if e.get("Id") in ids)
            with book.open(posixpath.join("xl", target).lstrip("/")) as file:
                for part in _parts(file):
                    hidden += [int(row) - 1 for row in _HIDDEN_ROW.findall(part)]
                    if b"<f" in part:
                        cells = _FORMULA.findall(part)
                        formulas += [(int(row) - 1, _column(letters)) for letters, row in cells]
        except (KeyError, StopIteration, ElementTree.ParseError):  # an unknown layout
            return [], []
    return formulas, hidden


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a sheet's XML, cut between cells, to save memory."""
    rest = b""
    while piece := file.read(1 << 24):
        piece = rest + piece
        end = piece.rfind(b"</c>") + 4
        yield piece[:end]
        rest = piece[end:][-(1 << 16) :]
    yield rest


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number - 1


def _fail(reason: str) -> None:
    print(" ".join(reason.split()), file=sys.stderr)
    sys.exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
