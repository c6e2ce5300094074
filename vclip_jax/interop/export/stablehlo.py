"""Both towers as StableHLO, by `jax.export`: for any number of inputs, on CPUs, GPUs and TPUs.

The weights stay in `model.safetensors`: a tower takes them as its first argument, by name. See
`interop.towers` for the folder. A tower is a program: XLA compiles it to native code, and it may
call what is registered in the process, so one that came from elsewhere is loaded on request alone.
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

KIND: Final = "stablehlo"
PLATFORMS: Final = ("cpu", "cuda", "tpu")


def save(
    target: str | Path,
    weights: Weights,
    tokenizer: Tokenizer,
    *,
    card: str,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a portable folder with `image.stablehlo`, `text.stablehlo` and `stablehlo.json`.

    `stablehlo.json` has for each tower also `platforms`, and `arguments`, for those who call the
    module without JAX: the weights that it reads by name, then its input. The index of the platform
    comes before them, as JAX's calling convention for several platforms has it.

    Raises:
        ValueError, OSError: as `towers.save`.
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
        details=details,
        overwrite=overwrite,
    )


def load(source: str | Path, *, trust: bool = False) -> towers.Exported:
    """Load an exported folder, to be called on this process's default device.

    Each number of inputs is compiled once.

    Args:
        source: the folder.
        trust: run the programs in it although another process wrote them.

    Raises:
        ValueError: one line: a file is missing or damaged, the towers and the weights do not
            belong together, or another process wrote them and there is no `trust`.
    """
    source = Path(source)
    info = towers.read_info(source, KIND)
    if not trust and not towers.was_written_here(source, KIND):
        raise ValueError(
            f"the towers in {source} are programs that this process did not write: pass trust=True "
            "if you trust whoever made them"
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
    """JAX notes the file and line of each operation, with the folders of this machine."""
    before = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _call(
    source: Path, name: str, arrays: Mapping[str, np.ndarray], reads: Sequence[str]
) -> towers.Call:
    """A tower of a folder, with its weights on the default device."""
    path = source / f"{name}.{KIND}"
    try:
        function = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    except FileNotFoundError as error:
        raise ValueError(f"there is no {path}: export the model again") from error
    except Exception as error:  # flatbuffers raises what it comes across
        reason = first_line(error)
        raise ValueError(f"{path} is damaged ({reason}): export the model again") from error
    weights = jax.device_put({name: arrays[name] for name in reads})

    def call(inputs: np.ndarray) -> np.ndarray:
        return np.asarray(function(weights, inputs))

    return call
