"""The verification of checkpoints: arrays that are read must equal the arrays that were saved.

Orbax does not notice flipped bits in arrays. So a fingerprint of every array in memory is saved
with the arrays, and compared with the arrays that are read back. This finds any fault between
saving and reading.
"""

import hashlib
import json
import logging
import os
import re
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from jax.experimental import multihost_utils

from vclip_jax.devices.tree import path_string
from vclip_jax.files.foreign import read_json
from vclip_jax.train.array_checksums import SMALLEST_ON_DEVICE, fingerprints
from vclip_jax.train.state import TrainState

_MOST_POSITION = 2**26
"""Bytes of a checkpoint's JSON with a fingerprint for every array: 64 MiB."""

log = logging.getLogger("vclip_jax")


class DamagedError(ValueError):
    """A checkpoint differs from what was saved; one line that names the checkpoint."""


class VerifiedReader:
    """A reader of the numbered checkpoints of a folder that verifies them."""

    def __init__(self, directory: Path):
        """Take the directory that holds a folder for each step."""
        self._directory = directory
        self._handler = ocp.PyTreeCheckpointHandler()

    def position(self, step: int) -> dict[str, Any]:
        """Read the JSON that was saved with the arrays, see `sealed`.

        Raises:
            DamagedError: the JSON cannot be read, or differs from what was saved.
        """
        try:
            content = read_json(self._directory / str(step) / "position/metadata", _MOST_POSITION)
            if not isinstance(content, dict) or content["step"] != step:
                raise ValueError("its position is that of another step")
            arrays = content.get("arrays")
            digest = content.pop("digest", None)  # earlier versions wrote neither
            if (digest is not None or arrays is not None) and digest != _digest(content):
                raise ValueError("its fingerprints were changed")
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(step, reason_of(error)) from error
        return content

    def read(self, step: int, targets: Any, *, together: bool, whole: bool) -> Any:
        """Read a tree of arrays like `targets`, and verify it.

        Args:
            step: the step of the checkpoint.
            targets: shapes, dtypes and shardings.
            together: True if all processes read at the same time.
            whole: True if the checkpoint must hold no other arrays.

        Raises:
            DamagedError: the checkpoint differs from what was saved.
            ValueError: the checkpoint's arrays do not match `targets`.
        """
        arrays = self.position(step).get("arrays")
        wanted = {
            path_string(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(targets)
        }
        if arrays is None:
            log.info("checkpoint %d is of an earlier version, without fingerprints", step)
        else:
            self._check_fit(step, arrays, wanted, whole=whole)
        restored, problem = None, None
        try:
            restored = self._handler.restore(
                epath.Path(self._directory) / str(step) / "state",
                args=ocp.args.PyTreeRestore(
                    targets,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(targets),
                    partial_restore=not whole,
                ),
            )
        except Exception as error:  # TensorStore's, or Orbax's own
            problem = error
        # All processes compute fingerprints together, so all must get here.
        if not (_everywhere(problem is None) if together else problem is None):
            reason = "another process cannot read it" if problem is None else reason_of(problem)
            if arrays is not None:
                raise self._damaged(step, reason) from problem
            raise ValueError(
                f"checkpoint {step} in {self._directory} does not fit this config: {reason}"
            ) from problem
        if arrays is not None:
            try:
                read = fingerprints(restored)
            except TypeError as error:  # damaged metadata made a leaf something other than an array
                raise self._damaged(step, reason_of(error)) from error
            wrong = [name for name in wanted if read[name] != arrays[name]["fingerprint"]]
            if wrong:
                raise self._damaged(
                    step, f"{len(wrong)} of {len(wanted)} arrays were changed, {wrong[0]} first"
                )
        return restored

    def check_written(self, step: int, readable: dict[str, Any]) -> None:
        """Read back a checkpoint that was just written: its structure, and some arrays.

        Args:
            step: the step of the checkpoint.
            readable: the arrays to read, from `small_arrays`.

        Raises:
            Exception: the checkpoint differs from what was saved, or cannot be read (Orbax and
                TensorStore raise many types).
        """
        arrays = self.position(step)["arrays"]
        tree = self._handler.metadata(epath.Path(self._directory) / str(step) / "state").tree
        written = {
            path_string(path): (str(np.dtype(leaf.dtype)), tuple(leaf.shape))
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        saved = {name: (a["dtype"], tuple(a["shape"])) for name, a in arrays.items()}
        if written != saved:
            first = min(n for n in written.keys() | saved if written.get(n) != saved.get(n))
            raise ValueError(f"{first} is not what was saved")
        if readable:
            self.read(step, readable, together=False, whole=False)

    def _check_fit(
        self, step: int, saved: dict[str, Any], wanted: dict[str, Any], *, whole: bool
    ) -> None:
        for name in sorted(wanted.keys() | (saved.keys() if whole else set())):
            have, want = saved.get(name), wanted.get(name)
            stored = None if have is None else (have["dtype"], tuple(have["shape"]))
            expected = None if want is None else (str(want.dtype), tuple(want.shape))
            if stored != expected:
                raise ValueError(
                    f"checkpoint {step} in {self._directory} does not fit this config: "
                    f"{name} is {_words(stored)} in the checkpoint, {_words(expected)} in the model"
                )

    def _damaged(self, step: int, reason: str) -> DamagedError:
        return DamagedError(f"checkpoint {step} in {self._directory} is damaged: {reason}")


def small_arrays(tree: dict[str, Any], most: int) -> dict[str, Any]:
    """Return shapes and dtypes of a nested dictionary's first small arrays, placed on the CPU.

    Args:
        tree: the arrays.
        most: the largest number of arrays to take.
    """
    on_cpu = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    small = (
        (path, jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=on_cpu))
        for path, array in traverse_util.flatten_dict(tree).items()
        if array.size < SMALLEST_ON_DEVICE
    )
    return traverse_util.unflatten_dict(dict(islice(small, most)))


def sealed(state: TrainState, position: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON to save with a state: `position`, the arrays' fingerprints and a digest.

    With several processes, all must call it together.
    """
    content = position | {"arrays": _describe(state)}
    return content | {"digest": _digest(content)}


def _describe(state: TrainState) -> dict[str, dict[str, Any]]:
    digits = fingerprints(state)
    return {
        path_string(path): {
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "fingerprint": digits[path_string(path)],
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _everywhere(here: bool) -> bool:
    """Return whether a condition that holds `here` holds on every process."""
    if jax.process_count() == 1:
        return here
    return bool(np.all(multihost_utils.process_allgather(np.array(here))))


def _words(array: tuple[str, tuple[int, ...]] | None) -> str:
    return "missing" if array is None else f"{array[0]}{list(array[1])}"


def reason_of(error: BaseException) -> str:
    """Return the operating system's message, if TensorStore names it, else the last line, short."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:300]
