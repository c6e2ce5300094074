"""The export of both towers as StableHLO, for any number of inputs, on CPUs, GPUs and TPUs.

The weights stay in `model.safetensors`: a tower takes them as its first argument, by name. See
`export.towers` for the folder. A tower is a program: XLA compiles it to native code, and it may
call functions that are registered in the process. So a tower from elsewhere is loaded only on
request.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.files.errors import first_line
from vclip_jax.interop import folder
from vclip_jax.interop.export import towers
from vclip_jax.interop.weights import Weights
from vclip_jax.prompts import PromptSet
from vclip_jax.prompts.calibration import Calibration

KIND: Final = "stablehlo"
PLATFORMS: Final = ("cpu", "cuda", "tpu")


def save(
    target: str | Path,
    weights: Weights,
    tokenizer: Tokenizer,
    *,
    card: str,
    prompts: PromptSet | None = None,
    calibrations: Sequence[Calibration] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a portable folder with `image.stablehlo`, `text.stablehlo` and `stablehlo.json`.

    For each tower, `stablehlo.json` also has `platforms` and, for callers without JAX,
    `arguments`: the names of the weights that the module reads, then its input. By JAX's calling
    convention for several platforms, the index of the platform comes before them.

    Raises:
        ValueError, OSError: as for `towers.save`.
    """
    both = towers.towers(weights.config)
    modules = {tower.name: _export(tower, weights).serialize() for tower in both}
    details = {
        tower.name: {
            "platforms": list(PLATFORMS),
            "arguments": [*tower.reads, tower.input_name],
        }
        for tower in both
    }

    def write(part: Path) -> dict[str, towers.Call]:
        for name, module in modules.items():
            (part / f"{name}.{KIND}").write_bytes(module)
        return {tower.name: _call(part, tower.name, weights.arrays, tower.reads) for tower in both}

    return towers.save(
        Path(target),
        KIND,
        weights,
        tokenizer,
        write,
        ("jax",),
        card=card,
        prompts=prompts,
        calibrations=calibrations,
        details=details,
        overwrite=overwrite,
    )


def load(source: str | Path, *, trust: bool = False) -> towers.Exported:
    """Load an exported folder, to be called on this process's default device.

    Each new number of inputs is compiled once.

    Args:
        source: the folder.
        trust: run the programs in the folder even if another process wrote them.

    Raises:
        ValueError: one line: a file is missing or damaged, the towers and the weights do not
            belong together, or another process wrote the towers and `trust` is False.
    """
    source = Path(source)
    info = towers.read_info(source, KIND)
    if not trust and not towers.was_written_here(source, KIND):
        raise ValueError(
            f"the towers in {source} are programs that this process did not write: pass trust=True "
            "if you trust their author"
        )
    weights = load_file(source / folder.MODEL)
    image, text = (
        _call(source, name, weights, info["towers"][name]["arguments"][:-1])
        for name in ("image", "text")
    )
    return towers.Exported(info, image, text)


def _export(tower: towers.Tower, weights: Weights) -> export.Exported:
    (batch,) = export.symbolic_shape("batch")
    inputs = jax.ShapeDtypeStruct((batch, *tower.shape), tower.dtype)
    arrays = {name: weights.arrays[name] for name in tower.reads}
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), arrays)
    with _without_places():
        return export.export(jax.jit(tower.function), platforms=PLATFORMS)(shapes, inputs)


@contextmanager
def _without_places() -> Iterator[None]:
    """Keep JAX from storing the file and line of each operation, with paths of this machine."""
    before = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _call(
    source: Path, name: str, arrays: Mapping[str, np.ndarray], reads: Sequence[str]
) -> towers.Call:
    """Load a tower of a folder, with its weights on the default device."""
    path = source / f"{name}.{KIND}"
    try:
        function = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    except FileNotFoundError as error:
        raise ValueError(f"there is no {path}: export the model again") from error
    except Exception as error:  # flatbuffers raises many types
        reason = first_line(error)
        raise ValueError(f"{path} is damaged ({reason}): export the model again") from error
    weights = jax.device_put({name: arrays[name] for name in reads})

    def call(inputs: np.ndarray) -> np.ndarray:
        return np.asarray(function(weights, inputs))

    return call
