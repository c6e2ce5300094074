"""The export of both towers as ONNX, for any number of inputs, with the weights inside.

jax2onnx (`pip install 'vclip_jax[onnx]'`) converts them. See `export.towers` for the folder.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.files.errors import first_line
from vclip_jax.interop.export import towers
from vclip_jax.interop.weights import Weights
from vclip_jax.prompts import PromptSet
from vclip_jax.prompts.calibration import Calibration

KIND: Final = "onnx"
OPSET: Final = 21
"""The operator set of ONNX 1.16 (2024), which onnxruntime reads from 1.18 on."""


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
    """Write a portable folder with `image.onnx`, `text.onnx` and `onnx.json`.

    Large weights go to `image.onnx.data` and `text.onnx.data` in the same folder.

    Raises:
        ValueError, OSError: as for `towers.save`; or one line: jax2onnx or onnxruntime is missing.
    """
    to_onnx = _converter()

    def write(part: Path) -> dict[str, towers.Call]:
        for tower in towers.towers(weights.config):
            arrays = {name: jnp.asarray(weights.arrays[name]) for name in tower.reads}
            inputs = jax.ShapeDtypeStruct(("batch", *tower.shape), tower.dtype)
            path = part / f"{tower.name}.{KIND}"
            try:
                with _quiet():
                    to_onnx(
                        partial(tower.function, arrays),
                        [inputs],
                        model_name=f"vclip_jax_{tower.name}",
                        opset=OPSET,
                        return_mode="file",
                        output_path=path,
                        input_names=[tower.input_name],
                        output_names=["embeddings"],
                    )
            except Exception as error:  # the converter's plugins raise any type
                reason = first_line(error)
                raise ValueError(
                    f"jax2onnx cannot convert the {tower.name} tower ({reason}): "
                    "nothing was exported"
                ) from error
        return {name: _session(part / f"{name}.{KIND}") for name in ("image", "text")}

    packages = ("jax", "jax2onnx", "onnxruntime")
    return towers.save(
        Path(target),
        KIND,
        weights,
        tokenizer,
        write,
        packages,
        card=card,
        prompts=prompts,
        calibrations=calibrations,
        overwrite=overwrite,
    )


def load(source: str | Path) -> towers.Exported:
    """Load an exported folder in onnxruntime, on the CPU.

    Raises:
        ValueError: one line: onnxruntime or a file is missing, a file is damaged, or the towers
            were made of other weights than the folder's.
    """
    source = Path(source)
    info = towers.read_info(source, KIND)
    image, text = (_session(source / f"{name}.{KIND}") for name in ("image", "text"))
    return towers.Exported(info, image, text)


def _converter() -> Any:
    _runtime()
    try:
        with _quiet():
            from jax2onnx import to_onnx
    except ImportError as error:
        raise ValueError(f"ONNX needs jax2onnx ({error}): pip install 'vclip_jax[onnx]'") from error
    return to_onnx


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            f"ONNX needs onnxruntime ({error}): pip install 'vclip_jax[onnx]'"
        ) from error
    return onnxruntime


def _session(path: Path) -> towers.Call:
    runtime = _runtime()
    if not path.is_file():
        raise ValueError(f"there is no {path}: export the model again")
    try:
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common type
        reason = first_line(error)
        raise ValueError(f"onnxruntime cannot read {path} ({reason})") from error
    (given,) = session.get_inputs()

    def call(inputs: np.ndarray) -> np.ndarray:
        return session.run(None, {given.name: inputs})[0]

    return call


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the converter's messages about every constant of a graph."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
