"""The columns of a table for caption, class, split, patient and findings; per eye if it has two."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from vclip_jax.datasets.formats.tables import Table
from vclip_jax.datasets.own import columns as names_of
from vclip_jax.datasets.own.columns import Wanted, named, same
from vclip_jax.datasets.own.eyes import side_column, side_of, without_side
from vclip_jax.datasets.own.facts import EYE, fact_columns
from vclip_jax.datasets.own.flags import (
    Flags,
    are_flags,
    found_flags,
    named_flags,
    notes_on_flags,
    summary_of,
)
from vclip_jax.datasets.own.lookup import split_of
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
        used = set(self._used)
        return person_columns(name for name in columns if name not in used)

    def facts(self, columns: Sequence[str]) -> dict[str, str]:
        """Return the columns of the photographs' facts, among those not used otherwise."""
        used = {*self._used, *self.people(columns)}
        return fact_columns(name for name in columns if name not in used)

    @cached_property
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
            if any(same(one.column, name) for name in (caption, label, wanted.split) if name):
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
        group = named(table.columns, wanted.group, "--group-column") if wanted.group else ""
        if group and group in (image, caption, label, split):
            raise ValueError(f"{group!r} has another use already, so it cannot name the patients")
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
    if any(same(column, name) for column in table.columns):
        return name
    column = next((own for other, own in table.paired.items() if same(other, name)), name)
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
