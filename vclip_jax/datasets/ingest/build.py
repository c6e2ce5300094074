"""From a listing to ArrayRecord: in parallel, resumable, and without losses.

The items of a split are cut into shards of a fixed number, in the order of the source, which is the
fastest to read. One worker makes a whole shard: it is either complete and noted, or absent. Then
the records are copied into larger files, in an order that follows from a seed and their keys;
otherwise a folder for each class would be stored class by class. A killed build continues with the
missing shards and ends with the same bytes as an uninterrupted one: a file's content is a function
of the items, of the storage of images, and of the seed.

Layout, as in TFDS: data_dir/NAME/CONFIG/VERSION with `NAME-SPLIT.array_record-00000-of-00002`,
`dataset_info.json` and `features.json`; next to them `keys-SPLIT.txt`, `rejects.jsonl`,
`card.json`, `card.md`, `samples.png`; `records.sha256`, which `sha256sum -c` reads; and
`listing.sha256`, which reveals another listing under the same name.
"""

import fcntl
import hashlib
import json
import operator
import os
import secrets
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from vclip_jax.console import terminal
from vclip_jax.datasets.built import DatasetError
from vclip_jax.datasets.ingest import FEW_REJECTS, MAX_REJECTS, data_card
from vclip_jax.datasets.ingest.shards import Place, Shard, run, run_beam, shuffled, write_in_order
from vclip_jax.datasets.ingest.store import DEFAULT_STORAGE, Storage
from vclip_jax.datasets.listing import Item, Listing, anonymous
from vclip_jax.datasets.records import SUMS
from vclip_jax.devices import cores
from vclip_jax.files.writing import check_no_link, replacing

VERSION: Final = "2.0.0"
"""Version of the built form: raise it when a listing would give other records or another order."""

RECORDS_PER_SHARD: Final = 512
"""Records of a worker's shard: a killed build loses at most one shard a worker."""
SHARD_BYTES: Final = 256 * 2**20
"""Approximate size of the final files: SynFundus-1M at 512 px has about 140, and a process may
usually open a thousand.
"""
_PARTS: Final = ("unordered", "notes", "data")
"""Folders of an unfinished build."""
_SECRET: Final = "secret"
_CONTENT: Final = "listing.sha256"
"""The file of a built dataset with the digest of its listing, which reveals another listing."""
_FEWEST_FOR_PROCESSES: Final = 64
"""Photographs below which starting a second process takes longer than the work."""


def build(
    listing: Listing,
    data_dir: str | os.PathLike[str],
    storage: Storage = DEFAULT_STORAGE,
    *,
    workers: int | None = None,
    seed: int = 0,
    max_rejects: float = MAX_REJECTS,
    strict: bool = False,
    beam: Sequence[str] | None = None,
) -> Path:
    """Build a dataset, continue a build that was cut off, or find the dataset built.

    Args:
        listing: the listing of a reader.
        data_dir: a local folder; files go to data_dir/NAME/CONFIG/VERSION.
        storage: the storage of images; CONFIG is named after it and the listing's variant.
        workers: processes, by default one a core.
        seed: seed of the order of a split's records, not negative; part of CONFIG unless it is 0.
        max_rejects: the build fails above this share of rejects, if they are more than
            `FEW_REJECTS`; `rejects.jsonl` stays.
        strict: fail unless every image that the reader lists is usable.
        beam: arguments for an Apache Beam pipeline, whose workers then make the shards and must
            see `data_dir` and the source under the same paths.

    Returns:
        The directory.

    Raises:
        DatasetError: one line: nothing to build, too many rejects, or a worker died.
        ValueError: one line: a link lies where the build would write.
        OSError: a file cannot be written.
    """
    if seed < 0:
        raise ValueError(f"the seed of the order must not be negative, got {seed}")
    order = f"seed{seed}" if seed else ""
    config = "-".join(part for part in (listing.variant, storage.name, order) if part)
    folder = Path(data_dir) / listing.name / config
    finished, unfinished = folder / VERSION, folder / f"incomplete.{VERSION}"
    if not listing.items:
        raise DatasetError(_nothing(listing, storage))
    content = [_content(listing), _files(listing)]
    if finished.exists():  # the folder appears whole: neither a lock nor write access is needed
        _check_content(finished, content)
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    check_no_link(folder / ".lock")
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in (unfinished, *unfinished.rglob("*")):
            check_no_link(path)
        if finished.exists():
            _check_content(finished, content)
            return finished
        if storage.anonymous:
            listing = anonymous(listing, _secret(unfinished))
        shards = _plan(listing, unfinished, storage)
        pending = [shard for shard in shards if not os.path.exists(shard.note)]
        bar = terminal.bar(
            total=len(listing.items),
            unit=" images",
            desc=listing.name,
            initial=len(listing.items) - sum(len(shard.items) for shard in pending),
        )
        with bar:
            if beam is not None:
                run_beam(pending, beam)
            else:
                few = sum(len(shard.items) for shard in pending) < _FEWEST_FOR_PROCESSES
                run(pending, 1 if few else workers or cores.usable(), bar)
        allowed = max(FEW_REJECTS, int(max_rejects * (len(listing.items) + len(listing.rejects))))
        _finish(listing, shards, storage, config, seed, unfinished / "data", allowed, strict)
        if not storage.anonymous:
            (unfinished / "data" / _CONTENT).write_text("".join(f"{one}\n" for one in content))
        (unfinished / _SECRET).unlink(missing_ok=True)  # before the records get their final place
        (unfinished / "data").rename(finished)
        shutil.rmtree(unfinished)
    return finished


def _content(listing: Listing) -> str:
    """Return SHA-256 of the listing, wherever its files are."""
    digest = hashlib.sha256(repr((listing.classes, dict(listing.columns))).encode())
    for item in listing.items:
        parts = (item.key, item.split, item.caption, item.label, item.values)
        digest.update(repr(parts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _files(listing: Listing) -> str:
    """Return SHA-256 of the order of classes and the sizes of the photographs' files."""
    sizes: dict[str, int] = {}
    digest = hashlib.sha256(repr(listing.ordered).encode())
    for item in listing.items:
        path = item.image.path
        if path not in sizes:
            sizes[path] = os.path.getsize(path) if os.path.exists(path) else -1
        digest.update(f"{sizes[path]} {item.image.member}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _check_content(folder: Path, content: Sequence[str]) -> None:
    """Check that a built dataset has the present listing.

    Raises:
        DatasetError: it was built from another listing.
    """
    noted = folder / _CONTENT
    # Datasets of earlier versions note the first digest only.
    if noted.is_file() and any(map(operator.ne, noted.read_text().split(), content)):
        raise DatasetError(
            f"{folder} was built from other photographs, captions, labels or options than now: "
            "remove this folder to build it again, or give another name"
        )


def _secret(folder: Path) -> bytes:
    """Return random bytes for the keys of an anonymous build.

    They are stored while the build is unfinished, so that it can continue: only the owner may read
    them, and the end of the build removes them.
    """
    path = folder / _SECRET
    if not path.exists():
        folder.mkdir(exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with replacing(path) as part, open(os.open(part, flags, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()


def _nothing(listing: Listing, storage: Storage) -> str:
    if storage.anonymous:
        listing = anonymous(listing, secrets.token_bytes(32))
    why = _reasons([asdict(reject) for reject in listing.rejects])
    return f"{listing.name}: there is no usable photograph in the source{why and f' ({why})'}"


def _reasons(rejects: Sequence[Mapping[str, str]]) -> str:
    """Count rejects by reason, with the last one as an example (the reader's come first)."""
    if not rejects:
        return ""
    counts = Counter(reject["reason"] for reject in rejects).most_common()
    detail = rejects[-1]["detail"] or rejects[-1]["key"]
    return f"{', '.join(f'{reason}: {n}' for reason, n in counts)}, such as {detail}"


def _plan(listing: Listing, folder: Path, storage: Storage) -> list[Shard]:
    """Cut the listing into shards; existing shards of another plan are removed."""
    sizes = (RECORDS_PER_SHARD, SHARD_BYTES)
    options = (VERSION, storage, listing.columns, sizes, _files(listing))
    digest = hashlib.sha256(repr(options).encode())
    splits: dict[str, list[Item]] = {}
    for item in listing.items:
        splits.setdefault(item.split, []).append(item)
        digest.update(repr(item).encode())
    plan = folder / "plan.sha256"
    known = plan.read_text() if plan.exists() else ""
    started = any((folder / subfolder).exists() for subfolder in _PARTS)
    if started and known != digest.hexdigest():
        print(f"{folder}: started with other files or options, starting again", file=sys.stderr)
        for subfolder in _PARTS:
            shutil.rmtree(folder / subfolder, ignore_errors=True)
    for subfolder in _PARTS:
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
    plan.write_text(digest.hexdigest())
    shards = []
    for split, items in sorted(splits.items()):
        count = -(-len(items) // RECORDS_PER_SHARD)
        for index in range(count):
            name = f"{listing.name}-{split}.array_record-{index:05d}-of-{count:05d}"
            part = items[index * RECORDS_PER_SHARD : (index + 1) * RECORDS_PER_SHARD]
            path, note = str(folder / "unordered" / name), str(folder / "notes" / f"{name}.json")
            columns = tuple(listing.columns)
            shards.append(Shard(split, index, path, note, tuple(part), columns, storage))
    return shards


def _finish(
    listing: Listing,
    shards: Sequence[Shard],
    storage: Storage,
    config: str,
    seed: int,
    folder: Path,
    allowed: int,
    strict: bool,
) -> None:
    """Write rejects, keys, TFDS's own files and the data card, from the shards' notes."""
    notes = [json.loads(Path(shard.note).read_text("utf-8")) for shard in shards]
    unusable = [reject for note in notes for reject in note["rejects"]]
    rejects = [asdict(reject) for reject in listing.rejects] + unusable
    lines = [json.dumps(reject, ensure_ascii=False) for reject in rejects]
    (folder / "rejects.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    kept = sum(len(note["kept"]) for note in notes)
    listed = len(listing.items) + len(listing.rejects)
    if kept + len(rejects) != listed:
        raise DatasetError(
            f"{listing.name}: {kept} kept and {len(rejects)} rejected of {listed} listed: "
            f"remove {folder} and build again"
        )
    if strict and unusable:
        raise DatasetError(
            f"{listing.name}: {_reasons(unusable)}: repair or remove the files, or build it with "
            f"`vclip datasets build {listing.name}`, which leaves them out"
        )
    if len(rejects) > allowed or not kept:
        raise DatasetError(
            f"{listing.name}: {len(rejects)} of {listed} are rejected, more than the {allowed} "
            f"that --max-rejects allows: {_reasons(rejects)}; all are in "
            f"{folder / 'rejects.jsonl'}"
        )
    splits: dict[str, tuple[list[int], int]] = {}
    for split in sorted({shard.split for shard in shards}):
        pairs = [pair for pair in zip(shards, notes, strict=True) if pair[0].split == split]
        places = [
            Place(one["key"], shard.path, number)
            for shard, note in pairs
            for number, one in enumerate(note["kept"])
        ]
        if not places:
            continue
        places = shuffled(places, seed)
        size = sum(note["bytes"] for _, note in pairs)
        lengths = write_in_order(places, folder, f"{listing.name}-{split}", -(-size // SHARD_BYTES))
        splits[split] = lengths, size
        keys = "".join(f"{place.key}\n" for place in places)
        (folder / f"keys-{split}.txt").write_text(keys, "utf-8")
    sums = (f"{_sha256(path)}  {path.name}\n" for path in sorted(folder.glob("*.array_record-*")))
    (folder / SUMS).write_text("".join(sums))
    _write_info(listing, splits, folder, fitted=bool(storage.ready))
    data_card.write(listing, storage, config, seed, shards, notes, rejects, folder)
    for leftover in folder.glob("*.tmp"):
        leftover.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_info(
    listing: Listing, splits: Mapping[str, tuple[list[int], int]], folder: Path, *, fitted: bool
) -> None:
    """Write TFDS's own files; `splits` has the shards' lengths and the bytes of all."""
    import tensorflow_datasets as tfds

    kinds = {int: np.int64, float: np.float32}
    columns: dict[str, Any] = {}
    for name, kind in listing.columns.items():
        feature = tfds.features.Text() if kind is str else tfds.features.Scalar(dtype=kinds[kind])
        room, _, finding = name.partition("/")
        if finding:  # as TFDS stores a dict of features
            columns.setdefault(room, {})[finding] = feature
        else:
            columns[name] = feature
    features = tfds.features.FeaturesDict(
        {
            # No format: a dataset of original bytes may mix JPEG and PNG.
            "image": tfds.features.Image(shape=(None, None, 3)),
            "caption": tfds.features.Text(),
            "key": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=listing.classes),
            **columns,
            **({"fitted": tfds.features.Text()} if fitted else {}),
        }
    )
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=listing.name, filetype_suffix="array_record"
    )
    # TFDS takes name and version from the folder's path, which is not yet the final one.
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=listing.name,
        version=tfds.core.Version(VERSION),
        data_dir=str(folder),
        module_name="vclip_jax",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=listing.description or listing.name,
        features=features,
        homepage=listing.homepage or None,
        license=listing.licence or None,
    )
    info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
    info.set_splits(
        tfds.core.splits.SplitDict(
            [
                tfds.core.SplitInfo(
                    name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
                )
                for split, (lengths, size) in splits.items()
            ]
        )
    )
    info.write_to_directory(folder)
