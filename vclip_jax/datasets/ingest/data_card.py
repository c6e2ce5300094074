"""The data card of a built dataset: its content, its rejects, and a sheet of samples."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageDraw

from vclip_jax.data.images.decode import decode
from vclip_jax.datasets.catalog import known_columns
from vclip_jax.datasets.formats.blobs import read
from vclip_jax.datasets.ingest.captions import duplicates
from vclip_jax.datasets.ingest.store import Storage, store
from vclip_jax.datasets.listing import FINDINGS, PATIENT, Item, Listing, Value, hash_of
from vclip_jax.files.errors import few, shown

if TYPE_CHECKING:
    from vclip_jax.datasets.ingest.shards import Shard

SAMPLES_PER_CLASS: Final = 6
MOST_CLASSES: Final = 12
"""Classes on the sample sheet."""
THUMBNAIL: Final = 160
BATCH: Final = 64
"""The recipe's batch, for the share of captions that have a twin in the batch."""


def write(
    listing: Listing,
    storage: Storage,
    config: str,
    seed: int,
    shards: Sequence["Shard"],
    notes: Sequence[Mapping[str, Any]],
    rejects: Sequence[Mapping[str, str]],
    folder: Path,
) -> None:
    """Write `card.json`, `card.md` and `samples.png` into `folder`."""
    kept = {one["key"]: one for note in notes for one in note["kept"]}
    items = [item for shard in shards for item in shard.items if item.key in kept]
    card = describe(listing, config, seed, items, kept, rejects)
    text = json.dumps(card, ensure_ascii=False, indent=1) + "\n"
    (folder / "card.json").write_text(text, "utf-8")
    lines = map(shown, markdown(card).split("\n"))
    (folder / "card.md").write_text("\n".join(lines), "utf-8")
    sample_sheet(listing.classes, items, storage).save(folder / "samples.png")


def describe(
    listing: Listing,
    config: str,
    seed: int,
    items: Sequence[Item],
    kept: Mapping[str, Mapping[str, Any]],
    rejects: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Return the content of `card.json`.

    Args:
        listing: the listing that was built.
        config: the built dataset's configuration.
        seed: seed of the order of its records.
        items: the items that were kept.
        kept: key -> `width`, `height` (as stored) and `digest` (of the bytes in the source).
        rejects: `key`, `reason`, `detail` of each.
    """
    names = ("no class", *listing.classes)
    splits: dict[str, dict[str, Any]] = {}
    for split in sorted({item.split for item in items}):
        labels = Counter(item.label for item in items if item.split == split)
        splits[split] = {
            "records": labels.total(),
            "classes": {names[label + 1]: n for label, n in sorted(labels.items())},
        }
    sizes = Counter(f"{one['width']} x {one['height']}" for one in kept.values())
    sides = np.array([max(one["width"], one["height"]) for one in kept.values()])
    captions = [item.caption for item in items]
    lengths = np.array([len(caption) for caption in captions])
    return {
        "name": listing.name,
        "config": config,
        "order_seed": seed,
        "description": listing.description,
        "homepage": listing.homepage,
        "licence": listing.licence,
        "listed": len(items) + len(rejects),
        "kept": len(items),
        "rejected": dict(Counter(reject["reason"] for reject in rejects).most_common()),
        "splits": splits,
        "longest_side": _spread(sides),
        "sizes": dict(sizes.most_common(10)),
        "classes": list(listing.classes),
        "ordered_classes": listing.ordered,
        "identical_images": twins(items, kept, finding_places(listing)),
        "patients": patients(listing, items),
        **findings(listing, items),
        "captions": {
            "characters": _spread(lengths),
            "empty": int((lengths == 0).sum()),
            **duplicates(captions, BATCH).as_dict(),
        },
        "warnings": listing.warnings,
        "notes": listing.notes + listing.guesses,
    }


def patients(listing: Listing, items: Sequence[Item]) -> dict[str, int]:
    """Count known patients, their photographs, and patients with photographs in several splits."""
    names = list(listing.columns)
    place = names.index(PATIENT) if PATIENT in names else -1
    splits: dict[Value, set[str]] = {}
    photographs = 0
    for item in items if place >= 0 else ():
        if item.values[place] != "":
            splits.setdefault(item.values[place], set()).add(item.split)
            photographs += 1
    several = sum(len(one) > 1 for one in splits.values())
    return {"known": len(splits), "photographs": photographs, "in_several_splits": several}


def finding_places(listing: Listing) -> dict[str, int]:
    """Return the name of each finding -> its place among an item's values."""
    names = list(listing.columns)
    own = {name.partition("/")[2]: name for name in names if name.startswith(f"{FINDINGS}/")}
    columns = own or dict(known_columns(listing.name)[0])
    return {finding: names.index(name) for finding, name in columns.items() if name in names}


def findings(listing: Listing, items: Sequence[Item]) -> dict[str, Any]:
    """Count the photographs with each finding, without it and not rated, and those with several.

    Returns:
        The entry `findings` of the card; none for a dataset without findings.
    """
    places = finding_places(listing)
    if not places:
        return {}
    counts = {}
    for name, place in places.items():
        flags = Counter(_flag(item.values[place]) for item in items)
        counts[name] = {"present": flags[1], "absent": flags[0], "not rated": flags[-1]}
    several = sum(
        sum(_flag(item.values[place]) == 1 for place in places.values()) > 1 for item in items
    )
    return {"findings": {"several": several, "counts": counts}}


def _flag(value: Value) -> int:
    """Return 1, 0 or -1; a grade is present from 1 on, as `records` reads it."""
    number = int(value)
    return (number > 0) - (number < 0)


def twins(
    items: Sequence[Item],
    kept: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """Count photographs that occur more than once, byte for byte, with some examples by key.

    The counts are those of groups of equal photographs, of groups in several splits, and of groups
    with several classes or contradicting findings.

    Args:
        items: the photographs.
        kept: key -> `digest`.
        places: the places of the findings among an item's values.
    """

    def differ(group: Sequence[Item]) -> bool:
        flags = ({_flag(item.values[place]) for item in group} for place in places.values())
        classes = {item.label for item in group} - {-1}
        return len(classes) > 1 or any({0, 1} <= one for one in flags)

    same: dict[str, list[Item]] = {}
    for item in items:
        same.setdefault(kept[item.key]["digest"], []).append(item)
    groups = [group for group in same.values() if len(group) > 1]
    splits = [group for group in groups if len({item.split for item in group}) > 1]
    labels = [group for group in groups if differ(group)]
    counts = {"groups": len(groups), "across_splits": len(splits), "across_labels": len(labels)}
    examples = [[item.key for item in group] for group in [*labels, *splits, *groups][:20]]
    return {
        **counts,
        "examples": [keys for i, keys in enumerate(examples) if keys not in examples[:i]],
    }


def summary(card: Mapping[str, Any]) -> list[str]:
    """List a built dataset's main facts, line by line: counts, rejects, contradictions, guesses."""
    lines = [f"{split}: {content['records']} records" for split, content in card["splits"].items()]
    rejected = sum(card["rejected"].values())
    lines.append(f"{card['listed']} listed = {card['kept']} kept + {rejected} rejected")
    lines += [f"rejected, {reason}: {count}" for reason, count in card["rejected"].items()]
    if people := known_patients(card):
        lines.append(people)
    counts: Counter[str] = Counter()
    for content in card["splits"].values():
        counts.update(content["classes"])
    names = [*card["classes"], "no class"]
    classes = [f"{name} {counts[name]}" for name in names if counts[name] or name != "no class"]
    if card["classes"]:
        lines.append(f"classes: {few(classes, 20)}")
    lines += known_findings(card)
    return lines + warnings(card) + [f"note: {note}" for note in card["notes"]]


def known_findings(card: Mapping[str, Any]) -> list[str]:
    """Return a sentence on the findings, and one on photographs with several; or nothing."""
    if "findings" not in card:
        return []
    counts, several = card["findings"]["counts"], card["findings"]["several"]
    said = few((f"{name} {one['present']:,}" for name, one in counts.items()), 20)
    return [f"findings: {said}", f"photographs with several findings: {several:,}"]


def known_patients(card: Mapping[str, Any]) -> str:
    """Return a sentence on the known patients, "" if there are none."""
    people = card.get("patients") or {"known": 0}
    if not people["known"]:
        return ""
    return f"{people['photographs']:,} photographs are of {people['known']:,} known patients"


def warnings(card: Mapping[str, Any]) -> list[str]:
    """List the contradictions in a built dataset, line by line."""
    same = card["identical_images"]
    such = f", such as {' and '.join(same['examples'][0])}" if same["examples"] else ""
    lines = []
    if number := same.get("across_labels"):
        what = "classes or findings" if "findings" in card else "classes"
        lines.append(
            f"warning: {number} photographs occur twice with different {what}{such}: which is "
            "right?"
        )
    if number := same.get("across_splits"):
        lines.append(
            f"warning: {number} photographs occur twice in different splits"
            f"{'' if lines else such}: figures of a split that holds one of them are too good"
        )
    people = card.get("patients") or {"in_several_splits": 0}
    if number := people["in_several_splits"]:
        lines.append(
            f"warning: {number} of {people['known']} patients have photographs in different "
            "splits: figures of a split that holds some of them are too good"
        )
    named = {name for content in card["splits"].values() for name in content["classes"]}
    named -= {"no class"}
    test = card["splits"].get("test")
    if test and len(named) > 2 and (lacking := sorted(named - set(test["classes"]))):
        lines.append(
            f"warning: {len(lacking)} of {len(named)} classes have no photograph in the test split "
            f"({few(lacking, 4)}): are they names for the same, or too rare to be scored?"
        )
    if len(named) == 1:
        lines.append(
            f"warning: all photographs with a class have the class {named.pop()!r}: zero-shot "
            "classification needs at least two classes"
        )
    return lines + [f"warning: {warning}" for warning in card.get("warnings", ())]


def _spread(values: np.ndarray) -> dict[str, int]:
    return {
        "least": int(values.min()),
        "median": int(np.median(values)),
        "most": int(values.max()),
    }


def markdown(card: Mapping[str, Any]) -> str:
    """Return `card.md`, the card as a page."""
    lines = [f"# {card['name']}", "", card["description"] or "A dataset of fundus photographs.", ""]
    lines += [f"- {name}: {card[name]}" for name in ("homepage", "licence") if card[name]]
    lines += [
        f"- stored as {card['config']}, each split shuffled by the seed {card['order_seed']}; "
        f"longest side {_range(card['longest_side'])} pixels",
        f"- {card['listed']:,} listed = {card['kept']:,} kept + "
        f"{sum(card['rejected'].values()):,} rejected",
    ]
    lines += [f"  - rejected, {reason}: {n:,}" for reason, n in card["rejected"].items()]
    groups = card["identical_images"]["groups"]
    lines += [f"- groups of images with the same bytes: {groups:,}"]
    lines += [f"- {people}" for people in [known_patients(card)] if people]
    lines += [f"- {line}" for line in known_findings(card)[1:]]
    lines += [f"- {line}" for line in warnings(card)]
    captions = card["captions"]
    lines += [
        f"- captions: {captions['unique']:,} different of {card['kept']:,}, effectively "
        f"{captions['effective']:.1f} (exponential of the entropy); in a batch of "
        f"{captions['batch']}, {captions['share_with_twin']:.0%} of the pairs have another with "
        f"the same caption; {_range(captions['characters'])} characters",
    ]
    lines += [f"- {note}" for note in card["notes"]]
    lines += ["", "| split | class | records |", "|---|---|---|"]
    for split, content in card["splits"].items():
        lines += [f"| {split} | {_cell(name)} | {n:,} |" for name, n in content["classes"].items()]
    if "findings" in card:
        lines += ["", "| finding | present | absent | not rated |", "|---|---|---|---|"]
        for name, one in card["findings"]["counts"].items():
            numbers = " | ".join(f"{n:,}" for n in one.values())
            lines += [f"| {_cell(name)} | {numbers} |"]
    lines += ["", "![samples](samples.png)", ""]
    return "\n".join(lines)


def _cell(name: str) -> str:
    """Return a name for a cell of a table, which "|" would part."""
    return name.replace("|", "\\|")


def _range(spread: Mapping[str, int]) -> str:
    if spread["least"] == spread["most"]:
        return f"{spread['least']:,}"
    return f"{spread['least']:,} to {spread['most']:,} (median {spread['median']:,})"


def sample_sheet(classes: Sequence[str], items: Sequence[Item], storage: Storage) -> Image.Image:
    """Draw a few photographs of every class as they are stored, chosen by their keys alone."""
    rows: list[tuple[str, list[Item]]] = []
    for label in range(-1, len(classes)):
        chosen = [item for item in items if item.label == label]
        chosen.sort(key=lambda item: hash_of(item.key, "sample"))
        if chosen:
            name = "no class" if label < 0 else classes[label]
            rows.append((name, chosen[:SAMPLES_PER_CLASS]))
    rows = rows[:MOST_CLASSES]
    title = 18
    sheet = Image.new(
        "RGB", (SAMPLES_PER_CLASS * THUMBNAIL, len(rows) * (THUMBNAIL + title)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for row, (name, chosen) in enumerate(rows):
        top = row * (THUMBNAIL + title)
        draw.text((4, top + 3), name, fill="black")
        for column, item in enumerate(chosen):
            image, _, _ = store(read(item.image), storage)
            square = Image.fromarray(decode(image, THUMBNAIL, "pad"))
            sheet.paste(square, (column * THUMBNAIL, top + title))
    return sheet
