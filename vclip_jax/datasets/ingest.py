"""From a listing to ArrayRecord: in parallel, resumable, and nothing lost.

The items of a split are cut into shards of a fixed number; one worker makes a whole shard, which
is then either there, complete and noted, or not there. A build that was killed goes on with the
shards that are missing, and ends with the same bytes as one that was left in peace: what a shard
holds is a function of its items and of how images are stored.

Layout, as TFDS has it: data_dir/NAME/CONFIG/VERSION with `NAME-SPLIT.array_record-00000-of-00002`,
`dataset_info.json` and `features.json`; and beside them `keys-SPLIT.txt`, `rejects.jsonl`,
`card.json`, `card.md` and `samples.png`.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from vclip_jax.datasets import card
from vclip_jax.datasets.listing import Item, Listing, anonymous
from vclip_jax.datasets.records import DatasetError
from vclip_jax.datasets.shards import Shard, run_beam, run_here, run_processes
from vclip_jax.datasets.store import DEFAULT_STORAGE, Storage

VERSION: Final = "1.0.0"
"""Of the built form: raise it when the same listing would give other records."""

RECORDS_PER_SHARD: Final = 512
MAX_REJECTS: Final = 0.05
"""Share of what is listed."""
FEW_REJECTS: Final = 10
"""So many never fail a build: of a handful, a share says nothing."""
_FEWEST_FOR_PROCESSES: Final = 64
"""Below this, starting processes takes longer than the work."""


def build(
    listing: Listing,
    data_dir: str | os.PathLike[str],
    storage: Storage = DEFAULT_STORAGE,
    *,
    workers: int | None = None,
    max_rejects: float = MAX_REJECTS,
    strict: bool = False,
    beam: Sequence[str] | None = None,
) -> Path:
    """Build a dataset, or go on with a build that was cut off, or find it built.

    With more than one worker, call it from under `if __name__ == "__main__"` in a script: the
    workers are spawned and import the script.

    Args:
        listing: from a reader.
        data_dir: a local folder; files go to data_dir/NAME/CONFIG/VERSION.
        storage: how images are stored; CONFIG is named after it and the listing's variant.
        workers: processes, by default one a core.
        max_rejects: the build fails above this share of rejects, if they are more than
            `FEW_REJECTS`; `rejects.jsonl` stays.
        strict: every image that the reader lists must be usable.
        beam: arguments for an Apache Beam pipeline, whose workers then make the shards and must
            see `data_dir` and the source under the same paths.

    Returns:
        The directory.

    Raises:
        DatasetError: one line: nothing to build, too many rejects, or a worker died.
        OSError: a file cannot be written.
    """
    if storage.anonymous:
        listing = anonymous(listing)
    config = "-".join(part for part in (listing.variant, storage.name) if part)
    folder = Path(data_dir) / listing.name / config
    finished, unfinished = folder / VERSION, folder / f"incomplete.{VERSION}"
    if not listing.items:
        raise DatasetError(_nothing(listing))
    if finished.exists():  # also where nothing can be written
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if finished.exists():
            return finished
        shards = _plan(listing, unfinished, storage)
        pending = [shard for shard in shards if not os.path.exists(shard.note)]
        bar = tqdm(
            total=len(listing.items), unit=" images", desc=listing.name, file=sys.stderr,
            initial=len(listing.items) - sum(len(shard.items) for shard in pending),
            dynamic_ncols=True,
        )  # fmt: skip
        with bar:
            if beam is not None:
                run_beam(pending, beam)
            elif workers == 1 or sum(len(s.items) for s in pending) < _FEWEST_FOR_PROCESSES:
                run_here(pending, bar)
            else:
                run_processes(pending, workers or os.cpu_count() or 1, bar)
        allowed = max(FEW_REJECTS, int(max_rejects * (len(listing.items) + len(listing.rejects))))
        _finish(listing, shards, storage, config, unfinished / "data", allowed, strict)
        (unfinished / "data").rename(finished)
        shutil.rmtree(unfinished)
    return finished


def _nothing(listing: Listing) -> str:
    why = _reasons([asdict(reject) for reject in listing.rejects])
    return f"{listing.name}: there is no usable photograph in the source{why and f' ({why})'}"


def _reasons(rejects: Sequence[Mapping[str, str]]) -> str:
    """Counts by reason, and the last reject as an example (the reader's own come first)."""
    if not rejects:
        return ""
    counts = Counter(reject["reason"] for reject in rejects).most_common()
    detail = rejects[-1]["detail"] or rejects[-1]["key"]
    return f"{', '.join(f'{reason}: {n}' for reason, n in counts)}, such as {detail}"


def _plan(listing: Listing, folder: Path, storage: Storage) -> list[Shard]:
    """Cut into shards; shards of another plan that lie there are thrown away."""
    digest = hashlib.sha256(repr((VERSION, storage, listing.columns, RECORDS_PER_SHARD)).encode())
    splits: dict[str, list[Item]] = {}
    for item in listing.items:
        splits.setdefault(item.split, []).append(item)
        digest.update(repr(item).encode())
    plan = folder / "plan.sha256"
    if folder.exists() and (not plan.exists() or plan.read_text() != digest.hexdigest()):
        print(f"{folder}: started with other files or options, starting anew", file=sys.stderr)
        shutil.rmtree(folder)
    for subfolder in ("data", "notes"):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
    plan.write_text(digest.hexdigest())
    shards = []
    for split, items in sorted(splits.items()):
        count = -(-len(items) // RECORDS_PER_SHARD)
        for index in range(count):
            name = f"{listing.name}-{split}.array_record-{index:05d}-of-{count:05d}"
            part = items[index * RECORDS_PER_SHARD : (index + 1) * RECORDS_PER_SHARD]
            path, note = str(folder / "data" / name), str(folder / "notes" / f"{name}.json")
            columns = tuple(listing.columns)
            shards.append(Shard(split, index, path, note, tuple(part), columns, storage))
    return shards


def _finish(
    listing: Listing,
    shards: Sequence[Shard],
    storage: Storage,
    config: str,
    folder: Path,
    allowed: int,
    strict: bool,
) -> None:
    """Rejects, keys, TFDS's own files and the data card, from the shards' notes."""
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
            f"{listing.name}: {_reasons(unusable)}: mend or remove the files, or build it with "
            f"`python -m vclip_jax.datasets build {listing.name}`, which leaves them out"
        )
    if len(rejects) > allowed or not kept:
        raise DatasetError(
            f"{listing.name}: {len(rejects)} of {listed} are rejected, more than the {allowed} "
            f"that --max_rejects allows: {_reasons(rejects)}; all are in "
            f"{folder / 'rejects.jsonl'}"
        )
    for split in sorted({shard.split for shard in shards}):
        names = [
            one["key"]
            for shard, note in zip(shards, notes, strict=True)
            if shard.split == split
            for one in note["kept"]
        ]
        (folder / f"keys-{split}.txt").write_text("".join(f"{n}\n" for n in names), "utf-8")
    _write_info(listing, shards, notes, folder)
    card.write(listing, storage, config, shards, notes, rejects, folder)
    for left in folder.glob("*.tmp"):
        left.unlink()


def _write_info(
    listing: Listing, shards: Sequence[Shard], notes: Sequence[dict[str, Any]], folder: Path
) -> None:
    import tensorflow_datasets as tfds

    kinds = {int: np.int64, float: np.float32}
    columns = {
        name: tfds.features.Text() if kind is str else tfds.features.Scalar(dtype=kinds[kind])
        for name, kind in listing.columns.items()
    }
    features = tfds.features.FeaturesDict(
        {
            # No format: a dataset of original bytes may mix JPEG and PNG.
            "image": tfds.features.Image(shape=(None, None, 3)),
            "caption": tfds.features.Text(),
            "key": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=listing.classes),
            **columns,
        }
    )
    splits: dict[str, tuple[list[int], int]] = {}
    for shard, note in zip(shards, notes, strict=True):
        lengths, size = splits.get(shard.split, ([], 0))
        splits[shard.split] = [*lengths, len(note["kept"])], size + note["bytes"]
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=listing.name, filetype_suffix="array_record"
    )
    # TFDS reads name and version off the folder's path, which is not yet the final one.
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=listing.name, version=tfds.core.Version(VERSION), data_dir=str(folder),
        module_name="vclip_jax",
    )  # fmt: skip
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
