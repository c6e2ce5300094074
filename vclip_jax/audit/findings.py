"""The findings of an audit: the counts, the list of pairs, and the page with the closest pairs."""

import base64
import os
from argparse import Namespace
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import simplejpeg

from vclip_jax.audit.near_duplicates import MAX_SIMILAR, Audit, compare
from vclip_jax.data.images.decode import decode
from vclip_jax.data.record import Record
from vclip_jax.datasets.built import find_dataset
from vclip_jax.datasets.records import open_source
from vclip_jax.devices import cores
from vclip_jax.files import open_files
from vclip_jax.files.csv_lines import csv_line
from vclip_jax.files.errors import few
from vclip_jax.files.writing import write_text
from vclip_jax.report.templates import render_template

MAX_SHOWN: Final = 100
"""The largest number of pairs that the page shows with pictures."""
_THUMBNAIL: Final = 224


def table(audit: Audit, name_a: str, name_b: str) -> str:
    """Format the counts as aligned text."""
    lines = [
        f"{side}  {name}: {len(x)} pictures compared, {len(x.damaged)} damaged, "
        f"{len(x.blank)} blank"
        for side, name, x in (("A", name_a, audit.a), ("B", name_b, audit.b))
    ]
    for side, x in (("A", audit.a), ("B", audit.b)):
        if x.damaged:
            lines.append(f"damaged in {side}: {few(x.damaged, 5)}")
    rows = [("", "pairs", "pictures of B", "share of B")]
    rows += [(name, f"{n:,}", f"{m:,}", share) for name, n, m, share in counts(audit)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    listed = len(audit.pairs)
    if listed < counts(audit)[-1][1]:
        lines.append(
            f"listed: {listed:,}; of the pairs that only embeddings find, the most similar"
        )
    return "\n".join(lines)


def counts(audit: Audit) -> list[tuple[str, int, int, str]]:
    """Return for each criterion its name, pairs, pictures of B in them, and their share of B."""
    by_hash = sum(p.kind != "embedding" for p in audit.pairs)
    above = 0
    if audit.cosine is not None:
        above = sum(
            p.kind != "embedding" and p.cosine is not None and p.cosine >= audit.cosine
            for p in audit.pairs
        )
    rows = [
        ("identical", "identical", sum(p.kind == "identical" for p in audit.pairs)),
        (f"by hash, distance <= {audit.distance}", "hash", by_hash),
    ]
    if audit.cosine is not None:
        rows.append((f"by embedding, cosine >= {audit.cosine:g}", "embedding", audit.similar))
    rows.append(("any of these", "any", by_hash + audit.similar - above))
    total = max(1, len(audit.b))
    return [
        (name, n, audit.affected[key], f"{100 * audit.affected[key] / total:.2f} %")
        for name, key, n in rows
    ]


def shared_patients(source_a: Sequence[Record], source_b: Sequence[Record]) -> str:
    """Return a sentence on the patients of two splits, "" if a split names none."""
    if any(not len(source) or "patient" not in source[0] for source in (source_a, source_b)):
        return ""
    a, b = (
        {record.get("patient", "") for record in source} - {""} for source in (source_a, source_b)
    )
    if not a or not b:
        return ""
    return f"{len(a & b):,} of the {len(b):,} patients of B also have photographs in A"


def write_csv(audit: Audit, path: str | os.PathLike[str]) -> None:
    """Write a line for each pair: key_a, key_b, kind, distance, cosine, mirrored.

    The cosine is empty without a model.
    """
    rows: list[tuple[object, ...]] = [
        ("key_a", "key_b", "kind", "distance", "cosine", "mirrored"),
    ]
    for p in audit.pairs:
        cosine = "" if p.cosine is None else f"{p.cosine:.4f}"
        mirrored = "yes" if p.mirrored else "no"
        rows.append((p.key_a, p.key_b, p.kind, p.distance, cosine, mirrored))
    write_text(Path(path), "".join(f"{csv_line(row)}\r\n" for row in rows))


def render(
    audit: Audit,
    source_a: Sequence[Record],
    source_b: Sequence[Record],
    name_a: str,
    name_b: str,
    patients: str = "",
) -> str:
    """Return the page: the counts, and the closest `MAX_SHOWN` pairs with their pictures.

    `patients` is a sentence of `shared_patients`.
    """
    picture_a = cache(lambda position: _data_uri(source_a[int(audit.a.indices[position])]))
    picture_b = cache(lambda position: _data_uri(source_b[int(audit.b.indices[position])]))
    shown = audit.pairs[:MAX_SHOWN]
    return render_template(
        "near_duplicates.html",
        notices=(),
        audit=audit,
        names={"A": name_a, "B": name_b},
        counts=counts(audit),
        patients=patients,
        shown=[(p, picture_a(p.a), picture_b(p.b)) for p in shown],
        max_similar=MAX_SIMILAR,
    )


def _data_uri(record: Record) -> str:
    square = decode(record["image"], _THUMBNAIL, "fundus", key=record["key"])
    jpeg = simplejpeg.encode_jpeg(square, 80, "RGB", colorsubsampling="420")
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def run(options: Namespace) -> None:
    """Audit two built datasets, print the counts, and write the pairs if `--out` is given.

    Raises:
        DatasetError: a dataset is missing or not usable.
        ValueError: see `compare` and `vclip_jax.load`.
    """
    open_files.raise_limit()
    name_a, name_b = f"{options.a}:{options.split_a}", f"{options.b}:{options.split_b}"
    source_a = open_source(options.a, options.data_dir, options.split_a)
    source_b = open_source(options.b, options.data_dir, options.split_b)
    folders = (find_dataset(name, options.data_dir) for name in (options.a, options.b))
    one_dataset = len(set(folders)) == 1
    if one_dataset and options.split_a == options.split_b:
        source_b = source_a
    for name, source in ((name_a, source_a), (name_b, source_b)):
        if len(source) and "fitted" in source[0]:
            raise ValueError(
                f"{name} was built with --ready: its squares cannot be compared with photographs; "
                "audit the dataset built without --ready"
            )
    model = None
    if options.model is not None:
        from vclip_jax.predict.pretrained import load, say_step

        model = load(options.model, step=options.step)
        say_step(options.model, model)
    audit = compare(
        source_a,
        source_b,
        one_dataset=one_dataset,
        distance=options.distance,
        model=model,
        cosine=options.cosine,
        workers=options.workers if options.workers is not None else cores.usable(),
    )
    print(table(audit, name_a, name_b))
    # Another dataset numbers other people.
    patients = (
        shared_patients(source_a, source_b) if one_dataset and source_a is not source_b else ""
    )
    if patients:
        print(patients)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_csv(audit, options.out / "audit.csv")
        page = render(audit, source_a, source_b, name_a, name_b, patients)
        write_text(options.out / "audit.html", page)
        print(f"written: {options.out / 'audit.csv'} and audit.html")
