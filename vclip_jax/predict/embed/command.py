"""Embed photographs, part by part, and join the parts to a Parquet file."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow

from vclip_jax.console import terminal
from vclip_jax.devices.ahead import ahead
from vclip_jax.files.errors import shown
from vclip_jax.predict.embed import columns
from vclip_jax.predict.embed.columns import Seen
from vclip_jax.predict.embed.inputs import Photographs, find
from vclip_jax.predict.embed.parts import Parts
from vclip_jax.predict.photographs import summary
from vclip_jax.predict.pretrained import CORES, Pretrained, load, say_step

METADATA = b"vclip_jax"
"""The key of the Parquet file's metadata; the value is JSON."""


def run(options: Namespace, out: TextIO) -> int:
    """Embed the photographs, write the file, and return the number that cannot be read.

    Raises:
        ValueError, OSError: one line.
    """
    target = Path(options.out)
    if target.suffix.lower() != ".parquet":
        raise ValueError(f"--out {target}: the name of the file must end in .parquet")
    photographs = find(options.inputs, options.data_dir, options.split, terminal.lines_of_stdin())
    if options.captions and photographs.about["dataset"] is None:
        raise ValueError("files have no captions: leave out --captions, or name a built dataset")
    said = f"embedding {photographs.said}"
    for note in (said, *photographs.notes):
        print(f"note: {shown(note)}", file=sys.stderr)
    clip = load(options.model, step=options.step)
    say_step(options.model, clip)
    parts = Parts(target, photographs.count)
    parts.begin(
        {
            "model": clip.digest,
            "photographs": photographs.digest,
            "captions": options.captions,
            "version": _version(),
        }
    )
    schema = columns.schema(clip.embed_dim, photographs.findings, options.captions)
    _make(clip, photographs, parts, schema)
    about = {
        "made_by": f"vclip_jax {_version()}",
        "model": name_of(options.model),
        "model_sha256": clip.weights_digest,
        "step": clip.step,
        "dtype": clip.dtype,
        "preprocessing": clip.config["data"],
        **photographs.about,
        "photographs_sha256": parts.pictures(),
    }
    described = {METADATA: json.dumps(about, ensure_ascii=False).encode()}
    refused, rejects = parts.join(schema.with_metadata(described))
    parts.remove()
    embedded = refused.total()
    print(f"{target}: {embedded:,} photographs, vectors of {clip.embed_dim} numbers", file=out)
    if text := summary(refused):
        print(f"gate: {text}", file=sys.stderr)
    if rejects:
        print(f"{rejects} of the images could not be read: see {parts.rejects}", file=sys.stderr)
    return rejects


def name_of(model: str) -> str:
    """Return the name of a model without the folder that it lies in."""
    return model if model.startswith("hub:") else os.path.basename(os.path.abspath(model))


def _version() -> str:
    return metadata.version("vclip_jax")


def _make(clip: Pretrained, photographs: Photographs, parts: Parts, schema: pyarrow.Schema) -> None:
    """Embed the photographs of the missing parts, and write these parts."""
    missing, damaged = parts.missing()
    if damaged:
        print(f"note: {damaged} damaged parts are made again", file=sys.stderr)
    left = sum(len(parts.rows(number)) for number in missing)
    bar = terminal.bar(
        total=photographs.count,
        unit=" images",
        desc="embed",
        initial=photographs.count - left,
    )
    data = clip.config["data"]
    # Each thread waits for a process that decodes a file, or decodes a record itself.
    pool = ThreadPoolExecutor(CORES)
    try:
        seen = ahead(
            pool,
            lambda index: photographs.look(index, data),
            (index for number in missing for index in parts.rows(number)),
            clip.batch_size,
        )
        with bar:
            for number in missing:
                rows, vectors = embed(clip, islice(seen, len(parts.rows(number))), bar.update)
                parts.write(number, columns.part(rows, vectors, schema))
    finally:
        pool.shutdown(cancel_futures=True)


def embed(
    clip: Pretrained, seen: Iterable[Seen], done: Callable[[int], Any] = lambda _: None
) -> tuple[list[Seen], np.ndarray]:
    """Embed the photographs of a part.

    The batches begin with the part, so that its vectors do not depend on the parts before it.

    Args:
        clip: the model.
        seen: the photographs.
        done: called with the number of photographs of each batch.

    Returns:
        The photographs without their squares, and float32 unit vectors `[m, embed_dim]` of the `m`
        that can be read.
    """
    rows: list[Seen] = []
    vectors = [np.empty((0, clip.embed_dim), np.float32)]
    seen = iter(seen)
    while chunk := list(islice(seen, clip.batch_size)):
        squares = [one.square for one in chunk if one.square is not None]
        if squares:
            vectors.append(clip.embed(np.stack(squares)))
        rows += [replace(one, square=None) for one in chunk]
        done(len(chunk))
    return rows, np.concatenate(vectors)
