"""Read, judge and embed the photographs that a command names."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from vclip_jax.data.choices import GATES
from vclip_jax.data.images.opening import ImageError
from vclip_jax.data.images.preprocess import Views, preprocess_file
from vclip_jax.devices import cores
from vclip_jax.predict.pretrained import Pretrained

MOST_WORKERS: Final = 16
"""The largest number of processes that decode images."""


class Looked(NamedTuple):
    """A file, the model's view of it, and the reasons to refuse it."""

    path: Path
    error: str = ""
    """The reason why the file cannot be read, or ""."""
    gate: tuple[str, ...] = ()
    """The reasons to refuse the photograph, see `data.images.gate`."""
    embedding: np.ndarray | None = None
    """float32 `[embed_dim]`; None for an unreadable or excluded photograph."""
    square: np.ndarray | None = None
    """uint8 `[size, size, 3]`, the model's view, kept only for heat maps."""
    picture: np.ndarray | None = None
    """uint8 `[side, side, 3]`, the picture to draw a heat map on, if any."""


def look(
    clip: Pretrained, paths: Iterable[Path], gate: str = GATES[0], side: int = 0
) -> Iterator[list[Looked]]:
    """Read and embed photographs, and yield them a batch at a time.

    Args:
        clip: the model.
        paths: the photographs.
        gate: one of `choices.GATES`; "exclude" does not embed refused photographs.
        side: side of the pictures for heat maps, in pixels; 0 for none.
    """

    def preprocess(path: Path) -> Views | ImageError:
        return preprocess_file(str(path), clip.config["data"], side, gate != "off")

    paths = iter(paths)
    # Each thread waits for a separate process, which a damaged file may crash.
    with ThreadPoolExecutor(min(MOST_WORKERS, cores.usable())) as pool:
        while chunk := list(islice(paths, clip.batch_size)):
            read = pool.map(preprocess, chunk)
            looked = []
            for path, found in zip(chunk, read, strict=True):
                if isinstance(found, ImageError):
                    looked.append(Looked(path, str(found)))
                else:
                    square, picture, refused = found
                    looked.append(Looked(path, "", refused, None, square, picture))
            asked = [_is_asked(one, gate) for one in looked]
            squares = [np.asarray(o.square) for o, so in zip(looked, asked, strict=True) if so]
            embeddings = iter(clip.embed(np.stack(squares)) if squares else ())
            yield [
                one._replace(
                    embedding=next(embeddings) if so else None,
                    square=one.square if side else None,
                )
                for one, so in zip(looked, asked, strict=True)
            ]


def _is_asked(one: Looked, gate: str) -> bool:
    return one.square is not None and not (one.gate and gate == "exclude")


def embeddings_of(clip: Pretrained, looked: Iterable[list[Looked]]) -> np.ndarray:
    """Return the embeddings of the photographs that have one, float32 `[n, embed_dim]`."""
    found = [one.embedding for chunk in looked for one in chunk if one.embedding is not None]
    return np.stack(found) if found else np.empty((0, clip.embed_dim), np.float32)


def summary(refused: Mapping[str, int]) -> str:
    """Return a sentence about refused photographs and the reasons, "" if there are none.

    Args:
        refused: reasons ("" for a good photograph) -> number of photographs.
    """
    reasons = {reason: count for reason, count in sorted(refused.items()) if reason}
    if not reasons:
        return ""
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    total = sum(refused.values())
    return f"{sum(reasons.values())} of {total} photographs are refused ({listed})"
