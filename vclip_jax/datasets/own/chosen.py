"""The columns of a table: photograph, caption, class, split; per eye if a row holds both."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import LOST_DIGITS, Table
from vclip_jax.datasets.listing import IMAGE_SUFFIXES
from vclip_jax.datasets.own import columns as names_of
from vclip_jax.datasets.own.columns import Wanted, named
from vclip_jax.datasets.own.eyes import SIDES, pairs, side_column, side_of, without_side
from vclip_jax.datasets.own.facts import EYE, fact_columns
from vclip_jax.datasets.own.flags import (
    Flags,
    are_flags,
    found_flags,
    named_flags,
    notes_on_flags,
    summary_of,
)
from vclip_jax.datasets.own.lookup import (
    Photographs,
    relative,
    split_of,
)
from vclip_jax.datasets.own.people import may_be_of_people, person_columns
from vclip_jax.files.errors import few

_TRIED: Final = 200
"""Rows from which a column is judged."""
_USUAL: Final = ("image", "file_name", "caption", "text", "label", "split")
"""Names of columns that need no note."""


@dataclass(frozen=True)
class Chosen:
    """The columns of one table, "" for a missing one."""

    image: str
    caption: str
    label: str
    split: str
    group: str = ""
    """The column of patients that the user named."""
    findings: tuple[Flags, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences on the columns of flags."""

    def people(self, columns: Sequence[str]) -> list[str]:
        """Return the columns that may identify the person, among those not used otherwise."""
        if self.group:
            return [self.group]
        return person_columns(name for name in columns if name not in self._used)

    def facts(self, columns: Sequence[str]) -> dict[str, str]:
        """Return the columns of the photographs' facts, among those not used otherwise."""
        used = {*self._used, *self.people(columns)}
        return fact_columns(name for name in columns if name not in used)

    @property
    def _used(self) -> list[str]:
        flags = [one.column for one in self.findings]
        return [self.image, self.caption, self.label, self.split, *flags]

    def note(self, where: str, columns: Sequence[str]) -> str:
        """Return a sentence on guessed and unread columns, "" if there are none.

        Args:
            where: the table's name.
            columns: all columns of the table.
        """
        parts = zip(("image", "caption", "label", "split"), self._used, strict=False)
        roles = {**dict(parts), EYE: side_column(columns)}
        roles |= self.facts(columns)
        used = {*roles.values(), *self._used, *self.people(columns)}
        unread = [name for name in columns if name not in used]
        if not unread and used <= {*_USUAL, ""}:
            return ""
        rest = f"; not read: {few(map(repr, unread))}" if unread else ""
        if about := [name for name in unread if may_be_of_people(name)]:
            rest += f" ({few(map(repr, about))} if it names patients: --group-column)"
        said = [f"{role} is {name!r}" for role, name in roles.items() if name]
        if self.findings:
            said.append(f"findings are {few((repr(one.column) for one in self.findings), 20)}")
        return f"{where}: {', '.join(said)}{rest}."


def image_finder(wanted: Wanted) -> Callable[[Sequence[str]], int]:
    """Return a function for `read_tables` that finds the cell naming the column of photographs."""

    def find(cells: Sequence[str]) -> int:
        if wanted.image:
            hits = [i for i, cell in enumerate(cells) if _same(cell, wanted.image)]
            pair = pairs(cells).get(names_of.plain(wanted.image), {})
            return next(iter([*hits, *map(list(cells).index, pair.values())]), -1)
        both = names_of.image_column(list(pairs(cells)))
        name = names_of.image_column(cells) or (pairs(cells)[both][SIDES[0]] if both else "")
        return list(cells).index(name) if name else -1

    return find


def _same(cell: str, name: str) -> bool:
    return cell == name or names_of.plain(cell) == names_of.plain(name)


def by_eye(
    table: Table, root: Path, photographs: Photographs, wanted: Wanted
) -> list[tuple[Table, str]]:
    """Return a table with its column of photographs, once per eye if a row holds both eyes.

    The table of an eye has that eye's columns. A table without photographs gives an empty list.

    Raises:
        ValueError: as `image_column` does; or several pairs of columns could be the photographs.
    """
    sided = pairs(table.columns)
    given = any(_same(column, wanted.image) for column in table.columns)
    pair = bool(wanted.image) and not given
    both = sided.get(names_of.plain(wanted.image)) if pair else None
    if wanted.image and both is None:
        column = image_column(table, root, photographs, wanted)
        both = next((pair for pair in sided.values() if column in pair.values()), None)
        other = next((name for name in (both or {}).values() if name != column), "")
        if both is None or not any(row.get(other) for _, row in table.rows):
            return [(table, column)] if column else []
        table.notes.append(
            f"{table.where}: a row holds both eyes, and the photographs of {other!r} are left out: "
            "without --image-column both are read."
        )
        return [(_one_eye(table, side_of(column), both), column)]
    if both is None:
        both = _both_eyes(table, relative(table.path.parent, root), photographs)
    if both is None:
        column = image_column(table, root, photographs, wanted)
        return [(table, column)] if column else []
    table.notes.append(f"{table.where}: a row holds both eyes and lists a photograph of each.")
    return [(_one_eye(table, side, both), both[side]) for side in SIDES]


def _both_eyes(table: Table, home: str, photographs: Photographs) -> dict[str, str] | None:
    """Return the columns of both eyes' photographs by side, or None if a row holds one eye."""

    def fit(column: str) -> bool:
        cells = {row.get(column, "") for _, row in table.rows[:_TRIED]} - {""}
        return 2 * sum(_names_photograph(one, home, photographs) for one in cells) >= len(cells) > 0

    known = names_of.image_columns(table.columns)
    sided = pairs(table.columns)
    if not sided or any(map(fit, known)):
        return None
    usual = names_of.image_column(list(sided))
    # Grades of left and right may be numbers, which can also be names of photographs.
    unusual = [
        rest
        for rest, pair in sided.items()
        if not names_of.said_columns([rest])
        and all(_many(table, one) and fit(one) for one in pair.values())
    ]
    if not usual and len(unusual) > 1:
        raise ValueError(
            f"{table.path}: photographs are named in the columns "
            f"{few(repr(name) for rest in unusual for name in sided[rest].values())}: name "
            f"one with --image-column, or a pair by its name without the side, such as "
            f"{unusual[0]!r}"
        )
    rest = usual if usual and (not known or any(map(fit, sided[usual].values()))) else None
    rest = unusual[0] if rest is None and unusual else rest
    return None if rest is None else sided[rest]


def _many(table: Table, column: str) -> bool:
    """Return whether most values of a column are different, as names of photographs are."""
    cells = [cell for _, row in table.rows[:_TRIED] if (cell := row.get(column, ""))]
    return 2 * len(set(cells)) > len(cells)


def _one_eye(table: Table, side: str, both: dict[str, str]) -> Table:
    """Return the table with the columns of one eye and those of both."""
    sided = pairs(table.columns)
    paired = {
        name: pair[side] for rest, pair in sided.items() for name in (*pair.values(), rest) if name
    }
    columns = tuple(name for name in table.columns if side_of(name) in ("", side))
    eyes = tuple(both[one] for one in SIDES)
    return replace(table, columns=columns, side=side, eyes=eyes, paired=paired)


def image_column(table: Table, root: Path, photographs: Photographs, wanted: Wanted) -> str:
    """Return the column of a table that names photographs; "" for a table without photographs.

    Raises:
        ValueError: one line: the cells name photographs, but no column has a known name, or there
            is no row of names.
    """
    home = relative(table.path.parent, root)

    def names_some(column: str) -> bool:
        cells = islice((row.get(column, "") for _, row in table.rows), _TRIED)
        return any(_names_photograph(cell, home, photographs) for cell in cells)

    def fits(column: str) -> int:
        cells = [row.get(column, "") for _, row in table.rows[:_TRIED]]
        return sum(
            bool(cell) and (not photographs.find(cell, home)[1] or bool(photographs.by_end(cell)))
            for cell in cells
        )

    if wanted.image:
        if any(_same(column, wanted.image) for column in table.columns):
            return named(table.columns, wanted.image, "--image-column")
    else:
        known = names_of.image_columns(table.columns)
        usable = [column for column in known if len(known) == 1 or names_some(column)]
        if len(usable) > 1 and not (count := fits(usable[0])):
            tried = len(table.rows[:_TRIED])
            for column in usable[1:]:
                if count := fits(column):
                    table.notes.append(
                        f"{table.where}: {usable[0]!r} names no existing photograph, {column!r} "
                        f"names {count} in the first {tried} rows and is taken."
                    )
                    return column
        if usable or known:
            return (usable or known)[0]
        weak = names_of.weak_image_columns(table.columns)
        lost = [c for c in weak if any(row.get(c) == LOST_DIGITS for _, row in table.rows)]
        for column in [*filter(names_some, weak), *lost]:
            return column
    hits = [column for column in table.columns if names_some(column)]
    words = [word for column in table.columns for word in (column, *column.split()[:1])]
    if any(_names_photograph(word, home, photographs) for word in words):
        raise ValueError(
            f"{table.path}: the first row ({few(table.columns, 4)}) names a photograph, not "
            "columns: put a row above it, such as image,caption,label"
        )
    if hits:
        raise ValueError(
            f"{table.path}: no column is called 'image' or another usual name, only "
            f"{few(map(repr, table.columns), 20)}: name it with --image-column (photographs are "
            f"named in {few(map(repr, hits))})"
        )
    return ""


def _names_photograph(cell: str, home: str, photographs: Photographs) -> bool:
    return cell.lower().endswith(IMAGE_SUFFIXES) or (
        bool(cell) and not photographs.find(cell, home)[1]
    )


def choose(table: Table, image: str, wanted: Wanted) -> Chosen:
    """Return the columns of a table, by the names that the user gave, else by known names.

    A table with neither caption nor label says what its columns of flags say, if it has two or
    more.

    Raises:
        ValueError: one line: there is neither a caption nor a label nor a finding, or a column
            could be either.
    """
    rest = [column for column in table.columns if column != image]
    try:
        flags = _named_flags(table, rest, wanted)
        caption, label = _for_eye(table, wanted.caption), _for_eye(table, wanted.label)
        for one in flags:
            if any(_same(one.column, name) for name in (caption, label, wanted.split) if name):
                raise ValueError(f"--finding-columns and another option name {one.column!r}")
        rest = [column for column in rest if column not in {one.column for one in flags}]
        caption = (
            named(rest, caption, "--caption-column")
            if caption
            else _usual(table, rest, names_of.caption_column)
        )
        rest = [column for column in rest if column != caption]
        label = (
            named(rest, label, "--label-column")
            if label
            else _usual(table, rest, names_of.label_column)
        )
        split = named(rest, wanted.split, "--split-column") if wanted.split else _split(table, rest)
        rest = [column for column in rest if column not in (label, split)]
        group = named(rest, wanted.group, "--group-column") if wanted.group else ""
        chosen = Chosen(image, caption, label, split, group, tuple(flags))
        others = _perhaps_flags(table, chosen)
        guessed = not (caption or label or flags)
        if guessed:
            flags = found_flags(
                {one: _name_of(table, one) for one in others if _is_of_one_eye(table, one)},
                [row for _, row in table.rows],
            )
            flags = flags if len(flags) > 1 else []
    except ValueError as error:
        raise ValueError(f"{table.path}: {error}") from error
    if not caption and not label and not flags:
        raise ValueError(f"{table.path}: {_nothing_said(table, rest, others)}")
    notes = notes_on_flags(table.where, flags, guessed=guessed)
    if name := summary_of(flags, [row for _, row in table.rows]):
        notes.append(
            f"{table.where}: {name!r} is present wherever another finding is: if it is their "
            "summary, leave it out of --finding-columns."
        )
    if not flags:
        notes += _notes_on_unread(table, [one for one in others if _is_of_one_eye(table, one)])
    return replace(chosen, findings=tuple(flags), notes=tuple(notes))


def _named_flags(table: Table, columns: Sequence[str], wanted: Wanted) -> list[Flags]:
    """Return the columns of findings that the user named.

    Raises:
        ValueError: one line: a column does not exist, is named twice, or holds no flags.
    """
    flags: list[Flags] = []
    for name in wanted.findings:
        column = named(columns, _for_eye(table, name), "--finding-columns")
        if any(one.column == column for one in flags):
            raise ValueError(f"--finding-columns names {column!r} twice")
        cells = (row.get(column, "") for _, row in table.rows)
        flags.append(named_flags(column, _name_of(table, column), cells))
    return flags


def _name_of(table: Table, column: str) -> str:
    """Return the finding that a column rates: in a row of both eyes, its name without the side."""
    left = [name for name, own in table.paired.items() if own == column and side_of(name) == "left"]
    return without_side(left[0]) if left else column


def _perhaps_flags(table: Table, chosen: Chosen) -> list[str]:
    """List the columns that may be of flags: not used, not facts, and neither ids nor splits."""
    used = {chosen.image, chosen.caption, chosen.label, chosen.split, side_column(table.columns)}
    used |= {*chosen.people(table.columns), *chosen.facts(table.columns).values()}
    used |= {*names_of.weak_image_columns(table.columns), *names_of.split_columns(table.columns)}
    used |= {*names_of.image_columns(table.columns), *(one.column for one in chosen.findings)}
    return [name for name in table.columns if name not in used]


def _is_of_one_eye(table: Table, column: str) -> bool:
    """Return whether a column is true of the photograph: in a row of both eyes, of this eye."""
    return not table.side or (column in table.paired.values() and bool(_name_of(table, column)))


def _nothing_said(table: Table, columns: Sequence[str], others: Sequence[str]) -> str:
    """Return the error on a table without words, with the remedy."""
    if shared := shared_columns(table):
        return (
            f"a row holds both eyes, but {few(map(repr, shared))} is for both "
            "together, and a patient's diagnosis may not be true of each eye: make it a column an "
            "eye, or name it with --label-column or --caption-column if it is true of both"
        )
    hint = ": name yours with --caption-column or --label-column"
    if of_eye := [column for column in columns if column in table.paired.values()]:
        hint += f", such as {of_eye[0]!r}; the other eye's column is then taken for the other eye"
    if flags := _flag_columns(table, others):
        which = " for both eyes together" if table.side else ""
        hint += (
            f"; columns of flags{which}, such as 1 and 0, are {few(map(repr, flags))}: name them "
            f"with --finding-columns if each is a finding{' of each eye' if which else ''}"
        )
    names = few(map(repr, table.columns), 20)
    return f"expected the column 'caption' or 'label', got {names}{hint}"


def _flag_columns(table: Table, columns: Iterable[str]) -> list[str]:
    """List the columns that hold flags in the first rows."""
    rows = [row for _, row in table.rows[:_TRIED]]
    return [name for name in columns if are_flags(row.get(name, "") for row in rows)]


def _notes_on_unread(table: Table, columns: Sequence[str]) -> list[str]:
    """Note columns of flags beside a caption or a label, which are not read."""
    flags = _flag_columns(table, columns)
    if len(flags) < 2:
        return []
    return [
        f"{table.where}: {few(map(repr, flags), 20)} hold flags, such as 1 and 0, and are not "
        "read: --finding-columns with these names reads each as a finding."
    ]


def _for_eye(table: Table, name: str) -> str:
    """Return the column that the user named, or its counterpart of this eye.

    Raises:
        ValueError: one line: the column belongs to the other eye, and this eye has none.
    """
    if any(_same(column, name) for column in table.columns):
        return name
    column = next((own for other, own in table.paired.items() if _same(other, name)), name)
    if table.side and side_of(column) not in ("", table.side):
        raise ValueError(
            f"{column!r} is of the {side_of(column)} eye, and the other has no such column: name "
            "its photographs with --image-column to read them alone"
        )
    return column


def _usual(table: Table, columns: Sequence[str], find: Callable[[Sequence[str]], str]) -> str:
    """Return the column that `find` knows.

    If a row holds both eyes, only this eye's columns count, by their names without the side: a
    statement about a patient may not be true of each eye.
    """
    if not table.side:
        return find(columns)
    eye_columns = set(table.paired.values())
    bare = {without_side(column): column for column in columns if column in eye_columns}
    return bare.get(find(list(bare)), "")


def shared_columns(table: Table) -> list[str]:
    """List the columns of captions or classes that belong to both eyes together."""
    eye_columns = set(table.paired.values())
    return names_of.said_columns(
        [name for name in table.columns if table.side and name not in eye_columns]
    )


def _split(table: Table, columns: Sequence[str]) -> str:
    for column in names_of.split_columns(columns):
        cells = {row.get(column, "") for _, row in table.rows} - {""}
        known = sum(map(bool, map(split_of, cells)))
        # Rows of other values ("external") become rejects: their split is unknown.
        if names_of.plain(column) == "split" or (known and 2 * known >= len(cells)):
            return column
    return ""
