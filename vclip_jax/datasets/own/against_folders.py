"""Notes on tables whose photographs lie in folders that may be classes."""

import csv
import io
import shlex
from collections import Counter
from collections.abc import Sequence

from vclip_jax.datasets.own.eyes import side_of
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.lookup import split_of
from vclip_jax.datasets.own.names import spelling
from vclip_jax.files.errors import few


def notes_on_folders(found: Sequence[Found]) -> list[str]:
    """Note folders that contradict the tables, could name classes, or are not read as classes."""
    return _against_folders(found) + _named_by_folders(found) + _unread_folders(found)


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
