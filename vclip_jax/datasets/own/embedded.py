"""Photographs inside the shards: Parquet as on the Hugging Face Hub, WebDataset."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from vclip_jax.datasets.formats import parquet, webdataset
from vclip_jax.datasets.formats.tables import Table, decode_text, text_of
from vclip_jax.datasets.listing import FINDINGS, Blob
from vclip_jax.datasets.own import rows as table_rows
from vclip_jax.datasets.own.chosen import choose
from vclip_jax.datasets.own.columns import Wanted, said_columns
from vclip_jax.datasets.own.eyes import side_column, side_of
from vclip_jax.datasets.own.facts import fact_columns, facts_of
from vclip_jax.datasets.own.flags import NO_FLAG, Flags, named_flags, notes_on_flags
from vclip_jax.datasets.own.folders import hidden_notes
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.labels import listed
from vclip_jax.datasets.own.lookup import check_tests, relative, split_of, split_of_path
from vclip_jax.datasets.own.people import person_columns, person_of
from vclip_jax.files.errors import few
from vclip_jax.files.foreign import read_bytes

CLASS_NAMES: Final = "classnames.txt"
"""The file next to WebDataset's shards with a class name a line."""
_MOST_NAMES: Final = 1 << 20


def image_column(path: Path, wanted: Wanted) -> str:
    """Return the column of a .parquet that holds encoded images, or "".

    Raises:
        ValueError: one line: the file is damaged, or several columns could be the photograph.
    """
    columns = parquet.image_columns(path)
    if wanted.image:
        return wanted.image if wanted.image in columns else ""
    if len(columns) > 1 and columns[0] not in parquet.USUAL_NAMES:
        raise ValueError(
            f"{path}: the columns {few(map(repr, columns))} hold images: name one with "
            "--image-column"
        )
    return columns[0] if columns else ""


def from_parquet(
    path: Path, image: str, root: Path, wanted: Wanted
) -> tuple[list[Found], list[tuple[tuple[str, ...], bool]], list[str]]:
    """Read the rows of a .parquet that holds images.

    Returns:
        The rows; the names of its classes and whether they are ordered, if it has a label; notes on
        guesses.

    Raises:
        ValueError: one line: the file is damaged, has neither caption nor label, or a label has no
            name.
    """
    flat = parquet.flat_columns(path)
    table = Table(path, "", tuple(flat), [])
    if wanted.findings or not (wanted.caption or wanted.label or said_columns(flat)):
        # Flags are known by their cells.
        values_of = [map(text_of, values) for _, values in parquet.rows(path, image, flat)]
        flags_by_row = [dict(zip(flat, values, strict=True)) for values in values_of]
        table = replace(table, rows=list(enumerate(flags_by_row, start=1)))
    chosen = choose(table, "", wanted)
    names, graded = parquet.class_names(path, chosen.label) if chosen.label else ((), False)
    people = chosen.people(tuple(flat))
    facts, sides = chosen.facts(tuple(flat)), side_column(tuple(flat))
    flags = [one.column for one in chosen.findings]
    used = [chosen.caption, chosen.label, chosen.split, *people, sides, *facts.values(), *flags]
    used = list(dict.fromkeys(filter(None, used)))
    rows = list(parquet.rows(path, image, used))
    stem = relative(path.with_suffix(""), root)
    # Names may be missing, or be the same in every row: then the row number is the key.
    as_keys = parquet.can_be_keys([name for name, _ in rows])
    of_shard = table_rows.split_of_table(path, root)
    found = []
    for number, (name, values) in enumerate(rows):
        cells = dict(zip(used, map(text_of, values), strict=True))
        where = f"{path.name}, row {number + 1}"
        split = cells.get(chosen.split, "")
        one = Found(
            key=f"{stem}/{name if as_keys else number}",
            image=Blob(str(path), f"{image}:{number}"),
            caption=cells.get(chosen.caption, ""),
            label=cells.get(chosen.label, ""),
            labelled=bool(chosen.label),
            split=split_of(split) or of_shard,
            reason="unknown split" if split and not split_of(split) else "",
            detail=where,
            source=path.name,
            people={column: person_of(cells.get(column, "")) for column in people},
            facts=facts_of(cells, facts, side_of(cells.get(sides, ""))),
            is_name=bool(names),
        )
        if names:
            try:
                classes, fault = parquet.names_of(one.label, names)
            except ValueError as error:
                raise ValueError(f"{path}, row {number + 1}: {error}") from error
            one.set_classes(classes)
            one.reason = fault or one.reason
        one.read_flags(cells, chosen.findings)
        found.append(one)
    others = [name for name in parquet.image_columns(path) if name != image]
    note = chosen.note("Parquet", [*flat, *others])
    return found, [(names, graded)] if chosen.label else [], [note, *chosen.notes]


def names_of_classes(files: Sequence[Path], found: Sequence[Found]) -> tuple[str, ...]:
    """Read `classnames.txt` next to WebDataset's shards and give the photographs their class names.

    The file has a name a line, for the numbers of the classes from 0.

    Args:
        files: the files of this name; several must be the same.
        found: the content of the shards; labels that are numbers become names.

    Returns:
        The names; () if there is no file or the labels are not numbers.

    Raises:
        ValueError: one line: a name is empty or repeated, files differ, or a label has no name.
    """
    labels = {label for one in found for label in listed(one.label) or [one.label] if label}
    if not files or not labels or not all(map(str.isdecimal, labels)):
        return ()
    texts = {decode_text(read_bytes(file, _MOST_NAMES)).rstrip() for file in files}
    if len(texts) > 1:
        raise ValueError(f"{files[0]} and {files[1]}: the names of classes differ")
    names = tuple(line.strip() for line in texts.pop().splitlines())
    if "" in names or len(set(names)) < len(names):
        raise ValueError(f"{files[0]}: a name of a class is empty or repeated")
    for one in found:
        if one.label:
            try:
                classes, fault = parquet.names_of(one.label, names)
            except ValueError as error:
                raise ValueError(
                    f"{files[0]}: has {len(names)} names, none for the label {one.label} "
                    f"({one.detail}): complete it, or give all with --classes"
                ) from error
            one.set_classes(classes)
            one.is_name, one.reason = True, one.reason or fault
    return names


def from_tars(shards: Sequence[Path], root: Path, wanted: Wanted) -> tuple[list[Found], list[str]]:
    """Read the samples of WebDataset's shards.

    Args:
        shards: the .tar files.
        root: the folder to which keys are relative if names repeat in several shards.
        wanted: only its columns of label, patient and findings are used: the entries of .json with
            the class (by default "label", else .cls), with the patient, and with flags.

    Returns:
        The samples, and notes on what was not read.

    Raises:
        ValueError: one line: a shard is damaged, or no sample has the entry.
    """
    label = wanted.label
    if wanted.image or wanted.caption or wanted.split:
        raise ValueError(
            f"{root}: .tar shards have no columns: only --label-column, --group-column and "
            "--finding-columns can be given, for entries of their .json"
        )
    check_tests([path.stem for path in shards], root)
    scans = [webdataset.scan_tar(path) for path in shards]
    samples = [sample for scan, _ in scans for sample in scan]
    hidden = [
        f"{path.name}: {name}"
        for path, (_, names) in zip(shards, scans, strict=True)
        for name in names
    ]
    if label and samples and not any(label in sample.extra for sample in samples):
        raise ValueError(f"{root}: no .json has the entry {label!r} for the label")
    check_tests((text_of(sample.extra.get("split")) for sample in samples), root)
    check_tests((part for sample in samples for part in sample.name.split("/")[:-1]), root)
    keys = [sample.key or sample.name for sample in samples]
    # Some datasets number their samples from 0 in every shard.
    first_seen: dict[str, Path] = {}
    clash = any(
        first_seen.setdefault(key, sample.shard) != sample.shard
        for key, sample in zip(keys, samples, strict=True)
    )
    if clash:
        keys = [
            f"{relative(sample.shard.with_suffix(''), root)}/{key}"
            for key, sample in zip(keys, samples, strict=True)
        ]
    entries = dict.fromkeys(name for sample in samples for name in sample.extra)
    free = [name for name in entries if name not in wanted.findings]
    people = [wanted.group] if wanted.group else person_columns(n for n in free if n != label)
    if wanted.group and samples and wanted.group not in entries:
        raise ValueError(f"{root}: no .json has the entry {wanted.group!r} for the patient")
    flags = _flags(samples, entries, wanted.findings, root)
    sides = side_column(free)
    facts = fact_columns(name for name in free if name not in (label, *people))
    listed_findings = list(dict.fromkeys(name for one in samples for name in _findings_of(one)))
    wrong = set(map(id, webdataset.contradicting(samples)))
    found = [
        _found_in(
            sample,
            key,
            root,
            label,
            people,
            sides,
            facts,
            flags,
            listed_findings,
            disagrees=id(sample) in wrong,
        )
        for key, sample in zip(keys, samples, strict=True)
    ]
    used = [label, *people, sides, *facts.values(), *wanted.findings]
    notes = notes_on_flags(shards[0].name, flags, guessed=False)
    return found, notes + _unread(samples, entries, used) + hidden_notes(hidden)


def _flags(
    samples: Sequence[webdataset.Sample], entries: Iterable[str], names: Sequence[str], root: Path
) -> list[Flags]:
    """Return the entries that the user named as findings.

    Raises:
        ValueError: one line: no .json has one, or one holds no flags.
    """
    if missing := [name for name in names if samples and name not in entries]:
        raise ValueError(f"{root}: no .json has the entry {missing[0]!r} for a finding")
    return [
        named_flags(name, name, (text_of(sample.extra.get(name)) for sample in samples))
        for name in names
    ]


def _found_in(
    sample: webdataset.Sample,
    key: str,
    root: Path,
    label: str,
    people: Sequence[str],
    sides: str,
    facts: Mapping[str, str],
    flags: Sequence[Flags],
    listed_findings: Sequence[str],
    disagrees: bool,
) -> Found:
    """Turn a sample into a photograph or a reject."""
    where = f"{sample.shard.name}: {sample.name}"
    reason, detail = ("invalid text", sample.broken) if sample.broken else ("", where)
    if len(sample.chosen) > 1:
        reason, detail = "two images in a sample", f"{where}: {few(sample.chosen)}"
    if disagrees and not label and not reason:
        reason, detail = "conflicting labels", f"{where}: {few(sample.labels)} in .json and .cls"
    split = text_of(sample.extra.get("split"))
    of_shard = table_rows.split_of_table(sample.shard, root) or split_of_path(sample.name)
    if split and not split_of(split) and not reason:
        reason, detail = "unknown split", f"{where}: {split!r}"
    # The other entries may be large.
    used = (*people, sides, *facts.values(), *(one.column for one in flags))
    cells = {name: text_of(sample.extra.get(name)) for name in used}
    one = Found(
        key=key,
        image=sample.image,
        caption=next(iter(sample.captions), ""),
        label=text_of(sample.extra.get(label)) if label else next(iter(sample.labels), ""),
        labelled=bool(label or sample.labels),
        split=split_of(split) or of_shard,
        reason=reason,
        detail=detail,
        source=sample.shard.name,
        people={column: person_of(cells[column]) for column in people},
        facts=facts_of(cells, facts, side_of(cells[sides])),
    )
    one.read_flags(cells, flags)
    own = _findings_of(sample)
    if not all(flag in (-1, 0, 1) for flag in own.values()):
        one.reason, one.detail = one.reason or NO_FLAG, f"{where}: a finding is 1, 0 or -1"
    elif not one.reason:
        rated = {name: int(flag) for name, flag in own.items()}
        one.findings = dict.fromkeys(listed_findings, -1) | rated | one.findings
    return one


def _findings_of(sample: webdataset.Sample) -> dict[str, Any]:
    """Return the findings that a .json lists as an object: name -> 1, 0 or -1."""
    own = sample.extra.get(FINDINGS)
    return own if isinstance(own, dict) else {}


def _unread(
    samples: Sequence[webdataset.Sample], entries: Iterable[str], used: Sequence[str]
) -> list[str]:
    """Note members of the shards, and entries of their .json, that are not read."""
    unread: Counter[str] = Counter()
    for sample in samples:
        unread.update(sample.unread)
        unread.update(suffix for suffix in sample.images if suffix not in sample.chosen)
    kinds = few(f"{count} .{suffix}" for suffix, count in unread.most_common())
    notes = [f"Members of the shards that are not read: {kinds}."] if unread else []
    if twice := [sample for sample in samples if len(sample.captions) > 1]:
        where = f"{twice[0].shard.name}: {twice[0].name}"
        notes.append(
            f"{len(twice)} samples have another caption in their .json, which is not read, such as "
            f"{where}."
        )
    names: dict[str, set[str]] = {}
    for sample in samples:
        if [text.isdecimal() for text in sample.labels].count(True) == 1 < len(sample.labels):
            number, name = sorted(sample.labels, key=str.isdecimal, reverse=True)
            names.setdefault(number, set()).add(name)
    if several := [number for number, found in sorted(names.items()) if len(found) > 1]:
        notes.append(
            f"The number {several[0]} of .cls has the names "
            f"{few(sorted(names[several[0]]))} in .json: the names are read."
        )
    read = {"key", "caption", "text", "label", "split", *used}
    read |= {FINDINGS} if any(map(_findings_of, samples)) else set()
    if others := [name for name in entries if name not in read]:
        notes.append(f"Entries of the .json that are not read: {few(map(repr, others))}.")
    return notes
