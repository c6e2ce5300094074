"""From the photographs that the readers found to a listing.

Classes get numbers, rows of one photograph are joined, and contradictions are rejected.
"""

import csv
import io
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from vclip_jax.datasets.listing import PATIENT, Blob, Item, Listing, Reject, split_by_hash
from vclip_jax.datasets.own.eyes import side_of
from vclip_jax.datasets.own.facts import FACTS
from vclip_jax.datasets.own.labels import (
    SEVERAL,
    in_order,
    is_parted,
    is_undecided,
    listed,
    read_caption,
    read_labels,
    says_nothing,
    spelling,
    spelt_alike,
)
from vclip_jax.datasets.own.lookup import split_of
from vclip_jax.datasets.own.people import eyes_across_splits
from vclip_jax.files.errors import few

SPELLINGS: Final = ("refuse", "merge", "keep")


@dataclass
class Found:
    """A listed photograph, before classes have numbers."""

    key: str
    image: Blob | None = None
    caption: str = ""
    label: str = ""
    split: str = ""
    """"" if there is none."""
    reason: str = ""
    """The reason why the photograph cannot be used, if any."""
    detail: str = ""
    source: str = ""
    """The table, so that rows of several tables can be joined."""
    person: tuple[str, str] = ("", "")
    """The column that identifies the person, and its cell; "" if there is none."""
    group: str = ""
    """A value that photographs of one split share, such as the eyes of one row; "" for the key."""
    word: str = ""
    """A cell in the place of a label that is no label, such as "unknown"."""
    facts: dict[str, str] = field(default_factory=dict)
    """The known facts, by the names of `facts.FACTS`."""
    is_name: bool = False
    """True if the label is a class's name as it stands, not a cell to be interpreted."""


@dataclass(frozen=True)
class Classes:
    """Facts about the classes besides the labels themselves."""

    order: tuple[str, ...] = ()
    """The order in the files."""
    given: tuple[str, ...] = ()
    """The user's classes; labels that are numbers count from the first, 0."""
    ordered: bool = False
    """True if the classes are grades, in this order."""
    spellings: str = "refuse"
    """The treatment of classes that differ only by case, width or white space."""


MOST_OF_A_PATIENT: Final = 20
"""Photographs a value of a column of patients, on average: above it the column names something
else, such as a ward or yes and no."""
LONGEST_LABEL: Final = 1000
"""Characters of a label: longer ones are text in the wrong cell."""


def listing_of(
    name: str,
    found: Sequence[Found],
    classes: Classes,
    guesses: Sequence[str] = (),
    *,
    patients_given: bool = False,
) -> Listing:
    """Make a listing.

    Args:
        name: name of the dataset.
        found: the photographs.
        classes: what is known of the classes.
        guesses: the notes of the readers.
        patients_given: True if the user named the column of patients.

    Raises:
        ValueError: one line: a label is none of the given classes, two differ only by their
            spelling,
            or the classes are said to be ordered and their order is not known.
    """
    notes = _clean(found)
    silent = _silent(found)
    notes += _read_labels(found, classes)
    notes += _spell(name, found, classes)
    kept, joined = _join(found)
    notes += _against_folders(kept) + _named_by_folders(kept) + _unread_folders(kept)
    if joined:
        notes.append(f"{joined} rows describe a photograph of another table's row and are joined.")
    labels = {one.label for one in found if one.label and not one.reason}
    names = classes.given or _ordered(labels, classes.order)
    if classes.ordered and not (classes.given or classes.order or all(map(str.isdecimal, names))):
        raise ValueError(
            f"{name}: the classes {few(names, 6)} are in alphabetical order: give the "
            "order of grades with --classes"
        )
    usable = [one for one in kept if not one.reason]
    notes += _name_patients(usable, patients_given)
    columns = [fact for fact in FACTS if any(fact in one.facts for one in usable)]
    notes += _follow_patients(usable)
    items, rejects = _number(kept, names, columns, silent)
    return Listing(
        name=name,
        classes=names,
        items=items,
        rejects=rejects,
        columns=dict.fromkeys(columns, str),
        notes=notes + _notes_of_items(items, usable),
        guesses=list(dict.fromkeys(filter(None, guesses))),
        warnings=_warnings(items, usable),
        description="Fundus photographs, read by the generic reader.",
        ordered=classes.ordered and bool(names),
    )


def _clean(found: Sequence[Found]) -> list[str]:
    """Make texts Unicode, tidy captions, and reject what cannot be tidied; return notes."""
    for one in found:
        _make_unicode(one)
        one.caption, fault = read_caption(one.caption)
        if len(one.label) > LONGEST_LABEL:
            one.label, fault = "", "label too long"
        one.reason = one.reason or fault
    empty = [one.caption for one in found if says_nothing(one.caption)]
    if not empty:
        return []
    return [f"{len(empty)} captions are {empty[0]!r}: empty the cells without a caption."]


def _name_patients(found: Sequence[Found], given: bool) -> list[str]:
    """Group the photographs by patient and store the patient as a fact.

    A guessed column with few values for many photographs names no patients: it is noted.
    """
    columns: dict[str, Counter[str]] = {}
    for one in found:
        if one.person[1]:
            columns.setdefault(one.person[0], Counter())[one.person[1]] += 1
    notes, others = [], set()
    for column, values in columns.items():
        if not given and values.total() > MOST_OF_A_PATIENT * len(values):
            others.add(column)
            notes.append(
                f"{column!r} has {len(values)} values for {values.total()} photographs and is "
                "taken for no name of patients: if it is one, give --group-column."
            )
    for one in found:
        if one.person[0] in others:
            one.person = ("", "")
        if one.person[1]:
            one.group = one.facts[PATIENT] = one.person[1]
    return notes


def _follow_patients(found: Sequence[Found]) -> list[str]:
    """Put photographs without a split into the split that the source gives their patient.

    Where it gives a patient several, photographs without one go by the hash of the patient.
    """
    given: dict[str, set[str]] = {}
    for one in found:
        if one.group and one.split:
            given.setdefault(one.group, set()).add(one.split)
    followed = 0
    for one in found:
        splits = given.get(one.group, set())
        if not one.split and len(splits) == 1:
            (one.split,) = splits
            followed += 1
    if not followed:
        return []
    return [
        f"{followed} photographs without a split of their own are in the split of their patient's "
        "other photographs."
    ]


def _number(
    found: Sequence[Found], names: Sequence[str], columns: Sequence[str], silent: str
) -> tuple[list[Item], list[Reject]]:
    """Return items with numbers for labels and the values of `columns`, and rejects.

    `silent` is the reason of rejects without words.
    """
    numbers = {text: index for index, text in enumerate(names)}
    items: list[Item] = []
    rejects: list[Reject] = []
    for one in found:
        number = numbers.get(one.label, -1)
        caption = one.caption or (names[number] if number >= 0 else "")
        word = f" ({one.word})" if one.word and silent != "empty caption" else ""
        reason = one.reason or ("" if caption else f"{silent}{word}")
        if reason or one.image is None:
            rejects.append(Reject(one.key, reason or "missing image", one.detail))
        else:
            split = one.split or split_by_hash(one.group or one.key)
            values = tuple(one.facts.get(column, "") for column in columns)
            items.append(Item(one.key, split, one.image, caption, number, values))
    return items, rejects


def _notes_of_items(items: Sequence[Item], usable: Sequence[Found]) -> list[str]:
    """Note how captions, splits and classes were chosen."""
    notes = []
    if written := [one.label for one in usable if one.label and not one.caption]:
        notes.append(
            f"{len(written)} captions are the name of the class, such as {written[0]!r}, where "
            "there is no caption."
        )
    if any(not one.split for one in usable):
        notes.append("Photographs without a split of their own are split by a hash of their key.")
        if any(one.group and not one.split for one in usable):
            notes.append(
                "Photographs of one patient, where a column names patients, and of one row are "
                "split together, by a hash of the patient."
            )
    counts = Counter(item.label for item in items if item.label >= 0)
    if len(counts) > 20 and 2 * len(counts) >= len(items):
        notes.append(
            f"There are {len(counts)} classes for {len(items)} photographs: are the labels "
            "sentences? Then name their column with --caption-column."
        )
    return notes


def _warnings(items: Sequence[Item], usable: Sequence[Found]) -> list[str]:
    """Warn of eyes that may be one person's, and of splits that only some photographs have.

    The data card counts the patients of a column.
    """
    warnings = [] if any(one.person[1] for one in usable) else eyes_across_splits(items)
    hashed = {one.key for one in usable if not one.split} & {item.key for item in items}
    if 0 < len(hashed) < len(items):
        warnings.append(
            f"{len(hashed)} of {len(items)} photographs have no split of their own and are split "
            "by a hash of their key: a test split of the source has others in it now"
        )
    return warnings


def _silent(found: Sequence[Found]) -> str:
    """Return the reason of a reject without words: what others have and this one lacks."""
    captions = any(one.caption for one in found)
    labels = any(one.label for one in found)
    if captions != labels:
        return "empty caption" if captions else "no label"
    return "neither caption nor label"


def _ordered(labels: set[str], order: Sequence[str]) -> tuple[str, ...]:
    """Return the files' order, then the other labels."""
    return (*order, *in_order(labels - set(order)))


def _make_unicode(one: Found) -> None:
    """Escape invalid characters: names of files may not be UTF-8, JSON can hold surrogates."""
    fields = [_escaped(text) for text in (one.key, one.detail, one.caption, one.label)]
    if fields != [one.key, one.detail, one.caption, one.label]:
        one.key, one.detail, one.caption, one.label = fields
        one.reason = one.reason or "not Unicode"


def _escaped(text: str) -> str:
    """Return the text with invalid characters escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _read_labels(found: Sequence[Found], classes: Classes) -> list[str]:
    """Interpret the cells; cells without a class, or with several, are noted or rejected."""
    cells = [one for one in found if not one.is_name and one.label not in classes.given]
    read = read_labels([one.label for one in cells], classes.given)
    nothing = Counter(
        one.label
        for one, (text, fault) in zip(cells, read, strict=True)
        if one.label and not text and not fault and not one.reason
    )
    several = Counter(
        one.label
        for one, (_, fault) in zip(cells, read, strict=True)
        if fault == SEVERAL and not one.reason
    )
    for one, (text, fault) in zip(cells, read, strict=True):
        if fault and not one.reason:
            one.reason, one.detail = fault, f"{one.detail}: {one.label!r}"
            if fault == SEVERAL and listed(one.label) is None:
                one.detail += " (if it is one class, list it with all others in --classes)"
        one.word = one.label if not text and is_undecided(one.label) else ""
        one.label = text
    notes = []
    if nothing:
        such = few((repr(text) for text, _ in nothing.most_common()), 3)
        notes.append(
            f"{nothing.total()} labels ({such}) are taken for no class: list one that is "
            "a class in --classes."
        )
    if several:
        such = few((repr(text) for text, _ in several.most_common()), 3)
        notes.append(
            f"{several.total()} labels ({such}) are several in one cell and rejected: list one "
            "that is a single class in --classes."
        )
    named = Counter(
        one.label
        for one in found
        if one.is_name and one.label not in classes.given and is_undecided(one.label)
    )
    notes += [
        f"{text!r} is a class of {count} photographs, by their folder or file: move them out if "
        "it is none, or list the classes in --classes."
        for text, count in named.items()
    ]
    parted = sorted({one.label for one in cells if not one.reason and is_parted(one.label)})
    if parted:
        such = few(map(repr, parted), 3)
        notes.append(f"{len(parted)} classes may be several in one cell, such as {such}.")
    return notes


def _spell(name: str, found: Sequence[Found], classes: Classes) -> list[str]:
    """Give each class one spelling; numbers become the given names."""
    usable = [one for one in found if one.label and not one.reason]
    given = classes.given
    notes = []
    if given:
        texts = {one.label for one in usable}
        if texts and all(text.isdecimal() for text in texts) and not texts & set(given):
            none = "" if "0" in texts else "; no label is 0: do yours count from 1?"
            notes.append(f"Labels are numbers of the given classes, 0 is {given[0]!r}{none}.")
            for one in usable:
                one.label = given[int(one.label)] if int(one.label) < len(given) else one.label
        by_spelling = {spelling(text): text for text in given}
        merged: dict[str, list[str]] = {}
        for one in usable:
            as_given = by_spelling.get(spelling(one.label), one.label)
            if one.label not in given and as_given in given and classes.spellings == "merge":
                merged.setdefault(as_given, [])
                if one.label not in merged[as_given]:
                    merged[as_given].append(one.label)
                one.label = as_given
            if one.label not in given:
                raise ValueError(
                    f"{one.detail or one.key}: the label {one.label!r} is none of the given "
                    f"classes ({few(given)})"
                )
        if merged:
            notes.append(_merged([[name, *others] for name, others in merged.items()]))
        return notes
    groups = spelt_alike(Counter(one.label for one in usable))
    if groups and classes.spellings == "refuse":
        where = {one.label: one.detail for one in reversed(usable)}
        pair = " and ".join(f"{label!r} ({where[label]})" for label in groups[0][:3])
        raise ValueError(
            f"{name}: the classes {pair} differ by case, width, "
            "hyphens or white space alone: --spellings merge makes them one, --spellings keep "
            "leaves them"
        )
    if groups and classes.spellings == "merge":
        for one in usable:
            one.label = next((group[0] for group in groups if one.label in group), one.label)
        notes.append(_merged(groups))
    return notes


def _merged(groups: Sequence[Sequence[str]]) -> str:
    """Return a sentence on the spellings that became the first of their group."""
    merged = few((f"{few(map(repr, group[1:]))} as {group[0]!r}" for group in groups), between="; ")
    return f"Classes of another spelling are counted as one: {merged}."


def _against_folders(found: Sequence[Found]) -> list[str]:
    """Return a sentence on photographs whose table contradicts their class folder, or nothing."""
    listed = [
        one
        for one in found
        if one.label and not one.reason and not one.is_name and one.image and not one.image.member
    ]
    names = {spelling(one.label) for one in listed}
    agree, against = 0, []
    for one in listed:
        folders = [part for part in one.key.split("/")[:-1] if spelling(part) in names]
        if spelling(one.label) in map(spelling, folders):
            agree += 1
        elif folders:
            against.append((one, folders[-1]))
    # Folders that are numbers may belong to patients, unless most agree with the labels.
    if not against or (len(against) > agree and all(map(str.isdecimal, names))):
        return []
    one, folder = against[0]
    return [
        f"{len(against)} photographs are in the folder of another class than their table says, "
        f"such as {one.key}: {one.label!r} ({one.detail}), not {folder!r}. The table counts: which "
        "is right?"
    ]


def _named_by_folders(found: Sequence[Found]) -> list[str]:
    """Return how to name classes that are numbers, if each number has a folder of its own."""
    numbers: dict[str, set[str]] = {}
    for one in found:
        if one.label and not one.reason and one.image and not one.image.member:
            folder = one.key.rpartition("/")[0].rpartition("/")[2]
            numbers.setdefault(folder, set()).add(one.label)
    names = {next(iter(labels)): folder for folder, labels in numbers.items() if len(labels) == 1}
    order = [names.get(str(number), "") for number in range(len(numbers))]
    if len(order) < 2 or any(not name or name.isdecimal() or split_of(name) for name in order):
        return []
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(order)
    return [
        "The photographs of each number lie in one folder: "
        f"--classes {shlex.quote(text.getvalue())} names the classes after the folders."
    ]


def _unread_folders(found: Sequence[Found]) -> list[str]:
    """Return the folders that may be of classes, if tables have captions and no labels."""
    listed = [one for one in found if not one.reason and one.image and not one.image.member]
    if any(one.label for one in found):
        return []
    places = [one.key.rpartition("/")[0].rpartition("/")[2] for one in listed]
    folders = Counter(place for place in places if place and not split_of(place))
    if len(folders) < 2 or 2 * len(folders) > len(listed) or any(map(side_of, folders)):
        return []
    said = few((f"{name!r} ({count})" for name, count in folders.most_common()), 6)
    return [
        f"The photographs lie in folders, {said}, which are not read as classes: the tables count. "
        "Classes have a column, such as label."
    ]


def _join(found: Sequence[Found]) -> tuple[list[Found], int]:
    """Return one entry a photograph, and the number of joined rows.

    Rows of several tables are joined; rows that repeat are rejects, and so are all rows that
    contradict each other.
    """
    groups: dict[str, list[Found]] = {}
    for one in found:
        if not one.reason and one.image is not None:
            groups.setdefault(one.key, []).append(one)
    joined: set[int] = set()
    for rows in groups.values():
        if len(rows) > 1:
            joined.update(_join_rows(rows))
    return [one for one in found if id(one) not in joined], len(joined)


def _join_rows(rows: list[Found]) -> list[int]:
    labels = list(dict.fromkeys(one.label for one in rows if one.label))
    splits = list(dict.fromkeys(one.split for one in rows if one.split))
    for what, values in (("labels", labels), ("splits", splits)):
        if len(values) > 1:
            for one in rows:
                one.reason = f"conflicting {what}"
                one.detail = f"{one.detail}: {few(map(repr, values))}"
            return []
    first, joined = rows[0], []
    for one in rows[1:]:
        if one.image != first.image:  # in shards, whose keys are not paths
            one.reason = "second sample of a key"
        elif one.caption and first.caption and one.caption != first.caption:
            one.reason = "second caption"
        elif one.source == first.source:
            one.reason = "duplicate row"
        else:
            joined.append(id(one))
        first.caption = first.caption or one.caption
        first.person = first.person if first.person[1] else one.person
        first.group = first.group or one.group
        first.facts = one.facts | first.facts
        first.label, first.split = "".join(labels), "".join(splits)
    return joined
