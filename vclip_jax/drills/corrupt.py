"""The drill `corrupt`: a damaged checkpoint is recognised and renamed, and the newest good one is
used."""

import logging
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vclip_jax.data.text.tokenizer_json import saved_tokenizer
from vclip_jax.devices import sharding
from vclip_jax.drills import tiny
from vclip_jax.drills.runs import IDENTICAL, REFERENCE, Drill, saved_steps
from vclip_jax.train.build import make_training
from vclip_jax.train.checkpoint import ASIDE, Checkpoints
from vclip_jax.train.state import TrainState

END_TO_END = 25
"""One of this many damaged runs is also trained to its end and compared."""


def corrupt(drill: Drill, times: int, rng: random.Random) -> dict[str, Any]:
    """Damage the newest checkpoint of a finished run, and restore.

    Damage that leaves all arrays unchanged, such as a bit in an unused part of a file, does not
    count: the restored state is compared with the original, and another damage is drawn.
    """
    drill.finish(REFERENCE)
    source = drill.workdir(REFERENCE)
    steps = saved_steps(source)
    abstract, layout = _layout(source)
    with Checkpoints(source, read_only=True) as checkpoints:
        originals = {
            step: jax.device_get(checkpoints.restore(abstract, layout, step)) for step in steps
        }
    for name in ("vclip_jax", "absl"):  # they warn of each damage
        logging.getLogger(name).setLevel(logging.ERROR)
    print("time  damage")
    recognised = harmless = wrong = 0
    work = drill.workdir("corrupt")
    while recognised + wrong < times:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(source, work)
        what = _damage(work / "checkpoints", steps, rng)
        with Checkpoints(work, keep=len(steps)) as checkpoints:
            restored = jax.device_get(checkpoints.restore(abstract, layout))
        step = int(restored.step)
        same = jax.tree.all(jax.tree.map(np.array_equal, restored, originals[step]))
        aside = (work / "checkpoints" / f"{ASIDE}{steps[-1]}").exists()
        gone = not (work / "checkpoints" / str(steps[-1])).exists()
        if same and step == steps[-1]:
            harmless += 1
            continue
        good = same and step == steps[-2] and (aside or gone)
        recognised += good
        wrong += not good
        print(f"{recognised + wrong - 1:4}  {what}: {'recognised' if good else 'NOT recognised'}")
    identical = 0
    for index in range(times // END_TO_END):
        name = f"corrupt-{index}"
        shutil.copytree(source, drill.workdir(name))
        path = rng.choice(_files(drill.workdir(name) / f"checkpoints/{steps[-1]}/state"))
        path.write_bytes(b"")
        identical += drill.outcome(name) == IDENTICAL
    return {
        "times": times,
        "recognised": recognised,
        "wrong": wrong,
        "harmless_redrawn": harmless,
        "trained_on": times // END_TO_END,
        "identical": identical,
    }


def _layout(workdir: Path) -> tuple[TrainState, TrainState]:
    tokenizer = saved_tokenizer(workdir)
    assert tokenizer is not None
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    training = make_training(tiny.get_config(), mesh, tokenizer.vocab_size)
    return training.abstract, training.placement


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def _damage(checkpoints: Path, steps: list[int], rng: random.Random) -> str:
    newest = checkpoints / str(steps[-1])
    files = _files(newest)
    # Draw by size, as if by a random bit of the disk.
    path = rng.choices(files, [file.stat().st_size for file in files])[0]
    kinds: dict[str, Callable[[], object]] = {
        "a flipped bit": partial(_flip, path, 1, rng),
        "thirty flipped bits": partial(_flip, path, 30, rng),
        "a page of zeros": partial(_zeros, path, rng),
        "a file cut off": lambda: path.write_bytes(
            path.read_bytes()[: rng.randrange(path.stat().st_size)]
        ),
        "a file lost": partial(_lose, [path]),
        "some files lost": partial(_lose, rng.sample(files, rng.randrange(1, len(files)))),
        "a part lost": lambda: shutil.rmtree(newest / rng.choice(["state", "position"])),
        "the arrays of another step": lambda: shutil.copytree(
            checkpoints / str(steps[-2]) / "state", _emptied(newest / "state")
        ),
        "cut off while it was written": lambda: newest.rename(
            checkpoints / f"{steps[-1]}.orbax-checkpoint-tmp"
        ),
    }
    kind = rng.choice(list(kinds))
    kinds[kind]()
    return f"{kind} ({path.relative_to(newest)})" if "file" in kind or "bit" in kind else kind


def _lose(files: list[Path]) -> None:
    for file in files:
        file.unlink()


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder)
    return folder


def _flip(path: Path, count: int, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(count):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _zeros(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    path.write_bytes(content)
