"""Reads an Excel file in a process of its own: PATH CELLS TEXT MEMORY first | named SHEET | all.

Writes JSON: for each sheet a line with its name and merged cells, then lines of some rows each. Run
by `limits.excel`; imports nothing of this package, so that it starts at once. What is wrong with
the file is the last line of standard error, with the exit status 3.
"""

import contextlib
import json
import resource
import sys


def main(path: str, cells: str, text: str, memory: str, which: str, sheet: str = "") -> None:
    """See above."""
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
            _fail(f"there is no sheet {sheet!r}, only {', '.join(names)}")
        for name in {"first": names[:1], "named": [sheet], "all": names}[which]:
            found = book.get_sheet_by_name(name)
            count = found.total_height * found.total_width
            cells_left -= count
            if cells_left < 0:
                _fail(
                    f"the sheet reaches to {found.total_height:,} rows and {found.total_width:,} "
                    f"columns, {count:,} cells: delete empty rows and columns, or save it as CSV"
                )
            rows = found.to_python(skip_empty_area=False)
            print(json.dumps({"sheet": name, "merged": found.merged_cell_ranges or []}))
            for start in range(0, len(rows), 1000):
                line = json.dumps(rows[start : start + 1000], default=str)
                text_left -= len(line)
                if text_left < 0:
                    _fail(f"its cells have more than {int(text):,} bytes of text")
                print(line)
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        _fail(f"not an Excel file, or a damaged one ({error})")


def _fail(reason: str) -> None:
    print(" ".join(reason.split()), file=sys.stderr)
    sys.exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
