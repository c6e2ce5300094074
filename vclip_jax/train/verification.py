"""Verify checkpoints: compare what is read with what was saved.

Orbax does not notice flipped bits in arrays. So the fingerprint of every array is stored beside
them, from the arrays in memory, and compared with what is read back: whatever happened in between,
a checkpoint that is used is the one that was saved.
"""

import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from vclip_jax.devices.tree import path_string
from vclip_jax.files.foreign import read_json
from vclip_jax.train.array_checksums import SMALLEST_ON_DEVICE, fingerprints
from vclip_jax.train.state import TrainState

_MOST_POSITION = 2**26
"""Bytes of a checkpoint's JSON with a fingerprint for every array: 64 MiB."""

log = logging.getLogger("vclip_jax")


class DamagedError(ValueError):
    """A checkpoint is not what was saved; one line that names it."""


class VerifiedReader:
    """Reads the numbered checkpoints of a folder, and compares them with what was saved."""

    def __init__(self, directory: Path):
        """`directory` holds a folder for each step."""
        self._directory = directory
        self._handler = ocp.PyTreeCheckpointHandler()

    def position(self, step: int) -> dict[str, Any]:
        """The JSON that was kept beside the arrays, see `sealed`.

        Raises:
            DamagedError: it cannot be read, or is not what was saved.
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
            step: of the checkpoint.
            targets: shapes, types and shardings.
            together: whether all processes read it, at the same time.
            whole: whether it is all that there should be.

        Raises:
            DamagedError: the checkpoint is not what was saved.
            ValueError: its arrays are not `targets`.
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
        # Fingerprints are computed together: no process may be missing.
        if not (_everywhere(problem is None) if together else problem is None):
            reason = "another process cannot read it" if problem is None else reason_of(problem)
            if arrays is not None:
                raise self._damaged(step, reason) from problem
            raise ValueError(
                f"checkpoint {step} in {self._directory} does not fit this config: {reason}"
            ) from problem
        if arrays is not None:
            try:
                found = fingerprints(restored)
            except TypeError as error:  # metadata that make a leaf something else than an array
                raise self._damaged(step, reason_of(error)) from error
            wrong = [name for name in wanted if found[name] != arrays[name]["fingerprint"]]
            if wrong:
                raise self._damaged(
                    step, f"{len(wrong)} of {len(wanted)} arrays were changed, {wrong[0]} first"
                )
        return restored

    def check_written(self, step: int, readable: dict[str, Any]) -> None:
        """Read back a checkpoint that was just written: its structure, and some arrays.

        Args:
            step: of the checkpoint.
            readable: what is read, from `small_arrays`.

        Raises:
            Exception: it is not what was saved, or cannot be read: Orbax's and TensorStore's
                errors have many types.
        """
        arrays = self.position(step)["arrays"]
        tree = self._handler.metadata(epath.Path(self._directory) / str(step) / "state").tree
        there = {
            path_string(path): (str(np.dtype(leaf.dtype)), tuple(leaf.shape))
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        saved = {name: (a["dtype"], tuple(a["shape"])) for name, a in arrays.items()}
        if there != saved:
            first = min(n for n in there.keys() | saved if there.get(n) != saved.get(n))
            raise ValueError(f"{first} is not what was saved")
        if readable:
            self.read(step, readable, together=False, whole=False)

    def _check_fit(
        self, step: int, saved: dict[str, Any], wanted: dict[str, Any], *, whole: bool
    ) -> None:
        for name in sorted(wanted.keys() | (saved.keys() if whole else set())):
            have, want = saved.get(name), wanted.get(name)
            is_there = None if have is None else (have["dtype"], tuple(have["shape"]))
            expected = None if want is None else (str(want.dtype), tuple(want.shape))
            if is_there != expected:
                raise ValueError(
                    f"checkpoint {step} in {self._directory} does not fit this config: "
                    f"{name} is {_words(is_there)} there, {_words(expected)} here"
                )

    def _damaged(self, step: int, reason: str) -> DamagedError:
        return DamagedError(f"checkpoint {step} in {self._directory} is damaged: {reason}")


def small_arrays(tree: dict[str, Any], left: list[int]) -> dict[str, Any]:
    """Shapes and types of a nested dictionary's small arrays, on this process's processor.

    Args:
        tree: of arrays.
        left: how many there may still be; is counted down.
    """
    processor = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    small: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            if below := small_arrays(value, left):
                small[name] = below
        elif value.size < SMALLEST_ON_DEVICE and left[0]:
            left[0] -= 1
            small[name] = jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=processor)
    return small


def sealed(state: TrainState, position: dict[str, Any]) -> dict[str, Any]:
    """The JSON to keep beside a state's arrays: `position`, the arrays' fingerprints and a digest.

    With several processes all call it together.
    """
    content = position | {"arrays": _describe(state)}
    return content | {"digest": _digest(content)}


def _describe(state: TrainState) -> dict[str, dict[str, Any]]:
    found = fingerprints(state)
    return {
        path_string(path): {
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "fingerprint": found[path_string(path)],
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _everywhere(here: bool) -> bool:
    """Whether it holds on every process."""
    if jax.process_count() == 1:
        return here
    return bool(np.all(multihost_utils.process_allgather(np.array(here))))


def _words(array: tuple[str, tuple[int, ...]] | None) -> str:
    return "not" if array is None else f"{array[0]}{list(array[1])}"


def reason_of(error: BaseException) -> str:
    """What the system said, if TensorStore tells it; else the last line, shortened."""
    if found := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(found[1]))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:300]
