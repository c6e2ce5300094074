"""From the photographs that the readers found to a listing.

Classes get numbers, rows of one photograph are joined, and what cannot be used is rejected.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from vclip_jax.datasets.listing import FINDINGS, Item, Listing, Reject, split_by_hash
from vclip_jax.datasets.own.against_folders import notes_on_folders
from vclip_jax.datasets.own.classes import Classes, read_cells, spell
from vclip_jax.datasets.own.facts import FACTS
from vclip_jax.datasets.own.findings import stored_names
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.joined import join
from vclip_jax.datasets.own.labels import read_caption, says_nothing
from vclip_jax.datasets.own.people import choose_persons, eyes_across_splits, group_by_person
from vclip_jax.datasets.own.rating import (
    Rated,
    caption_of,
    notes_on_findings,
    rate,
    reject_contradictions,
)
from vclip_jax.files.errors import few

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
            spelling, or the classes are said to be ordered and their order is not known.
    """
    notes = _clean(found)
    silent = _silent(found)
    notes += read_cells(found, classes)
    notes += spell(name, found, classes)
    more, unnamed = choose_persons(found, patients_given)
    notes += more
    reject_contradictions(found)
    kept, more = join(found)
    rated = rate(kept, classes)
    names = rated.classes
    notes += [*notes_on_folders(kept), *more, *rated.notes]
    if classes.ordered and not (classes.given or classes.order or all(map(str.isdecimal, names))):
        raise ValueError(
            f"{name}: the order of the classes {few(names, 6)} is not known: give the "
            "order of grades with --classes"
        )
    usable = [one for one in kept if not one.reason]
    notes += group_by_person(usable)
    facts = [fact for fact in FACTS if any(fact in one.facts for one in usable)]
    notes += _follow_patients(usable) + notes_on_findings(usable)
    stored = stored_names(rated.findings, name)
    notes += [
        f"The finding {name!r} is stored as {safe!r}: {'/'!r} would part its name."
        for name, safe in stored.items()
        if name != safe
    ]
    items, rejects = _number(kept, rated, facts, silent)
    return Listing(
        name=name,
        classes=names,
        items=items,
        rejects=rejects,
        columns=dict.fromkeys(facts, str) | {f"{FINDINGS}/{name}": int for name in stored.values()},
        notes=notes + _notes_of_items(items, usable),
        guesses=list(dict.fromkeys(filter(None, guesses))),
        warnings=unnamed + _warnings(items, usable),
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


def _make_unicode(one: Found) -> None:
    """Escape invalid characters: names of files may not be UTF-8, JSON can hold surrogates."""
    fields = [_escaped(text) for text in (one.key, one.detail, one.caption, one.label)]
    several = tuple(map(_escaped, one.several))
    if fields != [one.key, one.detail, one.caption, one.label] or several != one.several:
        one.key, one.detail, one.caption, one.label = fields
        one.reason, one.several = one.reason or "not Unicode", several


def _escaped(text: str) -> str:
    """Return the text with invalid characters escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


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
    found: Sequence[Found], rated: Rated, facts: Sequence[str], silent: str
) -> tuple[list[Item], list[Reject]]:
    """Return items with numbers for labels and the values of facts and findings, and rejects.

    `silent` is the reason of rejects without words.
    """
    numbers = {text: index for index, text in enumerate(rated.classes)}
    items: list[Item] = []
    rejects: list[Reject] = []
    for one in found:
        number = numbers.get(one.label, -1)
        caption = caption_of(one)
        word = f" ({one.word})" if one.word and silent != "empty caption" else ""
        reason = one.reason or ("" if caption else f"{silent}{word}")
        if reason or one.image is None:
            rejects.append(Reject(one.key, reason or "missing image", one.detail))
        else:
            split = one.split or split_by_hash(one.group or one.key)
            texts = (one.facts.get(fact, "") for fact in facts)
            flags = (one.findings.get(name, -1) for name in rated.findings)
            items.append(Item(one.key, split, one.image, caption, number, (*texts, *flags)))
    return items, rejects


def _notes_of_items(items: Sequence[Item], usable: Sequence[Found]) -> list[str]:
    """Note how captions, splits and classes were chosen."""
    notes = []
    written = [(caption_of(one), one.label) for one in usable if not one.caption]
    named = [caption for caption, label in written if caption and caption == label]
    worded = [caption for caption, label in written if caption and caption != label]
    if worded:
        notes.append(
            f"{len(worded)} captions are the findings in words, such as {worded[0]!r}, where "
            "there is no caption."
        )
    if named:
        notes.append(
            f"{len(named)} captions are the name of the class, such as {named[0]!r}, where "
            "there is no caption."
        )
    if any(not one.split for one in usable):
        notes.append("Photographs without a split of their own are split by a hash of their key.")
        if not any(one.person for one in usable):
            notes.append("No patients are known: if a column names them, give --group-column.")
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
    warnings = [] if any(one.person for one in usable) else eyes_across_splits(items)
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
    labels = any(one.classes for one in found)
    if captions != labels and not any(one.findings for one in found):
        return "empty caption" if captions else "no label"
    return "neither caption nor label"
