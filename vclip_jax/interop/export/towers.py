"""The towers as functions of arrays, for formats that run without this package.

An exported folder is a portable folder (`interop.folder`) with more files: the two towers, and
`FORMAT.json`, which says how to call them:

format        "stablehlo" or "onnx"
made_by       packages and their versions
weights       the file of the weights and its SHA-256; the towers fit only these weights
files         the towers' files and their SHA-256
logit_scale   the factor of cosines before a softmax over classes
towers        `image` and `text`: `file`, `input` and `output` (name, shape, type, meaning),
              `parity` (the largest difference from the model's own unit vectors, and how many
              inputs were compared at which batch sizes)
preprocessing how a photograph becomes the image tower's input
tokenizer     how a text becomes the text tower's input
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.files.foreign import read_json
from vclip_jax.files.writing import write_json
from vclip_jax.interop import folder, names
from vclip_jax.interop.weights import Weights, make_clip
from vclip_jax.models.build import split_model
from vclip_jax.models.clip import Clip
from vclip_jax.models.rng import seeded
from vclip_jax.prompts import PromptSet
from vclip_jax.prompts.calibration import Calibration

BATCHES: Final = (1, 3)
"""Batch sizes at which an export is compared with the model."""
TOLERANCE: Final = 1e-4
"""The largest allowed difference of a coordinate between an export's and the model's vectors."""

_written: set[str] = set()
"""SHA-256 of every `FORMAT.json` that this process wrote."""

Arrays = Mapping[str, Any]
Function = Callable[[Arrays, Any], jax.Array]
Call = Callable[[np.ndarray], np.ndarray]

_FITS: Final = {
    "pad": "padded to a square with black, resized",
    "squash": "resized to a square, ignoring its aspect ratio",
    "fundus": "cropped to the illuminated field, padded to a square with black, resized",
    "flair": "padded at the right or bottom to a square with black, resized",
    "centre_crop": "its shorter side resized, the middle square cut out",
}


@dataclass(frozen=True)
class Tower:
    """A tower before its export.

    Attributes:
        name: "image" or "text".
        input_name: the name of the input.
        shape: the shape of one input.
        dtype: the dtype of the inputs.
        reads: the names of the weights that the tower needs, sorted.
        function: (dotted name -> array, inputs `[b, *shape]`) to unit vectors float32 `[b, d]`.
        meaning: a description of the input, for people.
    """

    name: str
    input_name: str
    shape: tuple[int, ...]
    dtype: Any
    reads: tuple[str, ...]
    function: Function
    meaning: str


@dataclass(frozen=True)
class Exported:
    """A loaded export.

    Attributes:
        info: the content of its `FORMAT.json`.
        encode_image: uint8 RGB `[n, size, size, 3]` to unit vectors float32 `[n, d]`.
        encode_text: int32 `[n, context_length]` to unit vectors float32 `[n, d]`.
    """

    info: dict[str, Any]
    encode_image: Call
    encode_text: Call


def towers(config: Mapping[str, Any]) -> tuple[Tower, Tower]:
    """Return the image tower and the text tower of a portable configuration, in float32.

    Raises:
        ValueError: the configuration is only a text tower's.
    """
    if config["kind"] != "clip":
        raise ValueError("a text tower alone cannot be exported: name a model with both towers")
    graphdef, params, batch_stats = split_model(
        nnx.eval_shape(lambda: make_clip(config, seeded(0)))
    )
    shapes = names.flatten(params, batch_stats)
    image_reads = tuple(sorted(name for name in shapes if name.startswith("visual.")))
    text_reads = tuple(sorted(shapes.keys() - {*image_reads, "logit_scale"}))

    def model(weights: Arrays) -> Clip:
        # The other tower has only shapes, which nothing reads.
        return nnx.merge(graphdef, *names.unflatten({**shapes, **weights}))

    def image(weights: Arrays, images: Any) -> jax.Array:
        return model(weights).encode_image(images)

    def text(weights: Arrays, tokens: Any) -> jax.Array:
        return model(weights).encode_text(tokens)

    size, length = config["data"]["image_size"], config["tokenizer"]["context_length"]
    return (
        Tower(
            "image",
            "images",
            (size, size, 3),
            jnp.uint8,
            image_reads,
            image,
            "RGB photographs, preprocessed; the tower itself normalises the channels",
        ),
        Tower(
            "text",
            "tokens",
            (length,),
            jnp.int32,
            text_reads,
            text,
            "token ids, padded to the context length",
        ),
    )


def samples(weights: Weights) -> dict[str, np.ndarray]:
    """Make inputs of both towers for a comparison, as many as the largest of `BATCHES`.

    Images are noise, uint8 `[n, s, s, 3]`; texts are random tokens of different lengths, int32
    `[n, context_length]`.
    """
    rng, count = np.random.default_rng(0), max(BATCHES)
    size = weights.config["data"]["image_size"]
    length, vocab = (weights.config["tokenizer"][key] for key in ("context_length", "vocab_size"))
    tokens = rng.integers(1, vocab, (count, length), np.int32)
    kept = np.linspace(2, length, count).astype(int)[:, None]
    return {
        "image": rng.integers(0, 256, (count, size, size, 3), np.uint8),
        "text": np.where(np.arange(length) < kept, tokens, 0).astype(np.int32),
    }


def parity(weights: Weights, calls: Mapping[str, Call]) -> dict[str, dict[str, Any]]:
    """Compare exported towers with the model, which computes in float32 on the default device.

    Returns:
        Tower -> `max_abs_error` over all coordinates of all unit vectors, and `batches`.

    Raises:
        ValueError: a tower differs by more than `TOLERANCE`; the error names it.
    """
    results: dict[str, dict[str, Any]] = {}
    inputs = samples(weights)
    for tower in towers(weights.config):
        given = inputs[tower.name]
        read = {name: weights.arrays[name] for name in tower.reads}
        expected = np.asarray(jax.jit(tower.function)(read, given))
        error = max(
            float(np.abs(calls[tower.name](given[:size]) - expected[:size]).max())
            for size in BATCHES
        )
        if not error <= TOLERANCE:  # True for NaN too
            raise ValueError(
                f"the exported {tower.name} tower differs from the model by {error:.1e}, more "
                f"than {TOLERANCE:.0e}: nothing was exported"
            )
        results[tower.name] = {"max_abs_error": error, "batches": list(BATCHES)}
    return results


def describe(
    kind: str,
    weights: Weights,
    tokenizer: Tokenizer,
    digest: str,
    files: Mapping[str, str],
    details: Mapping[str, Mapping[str, Any]],
    packages: Sequence[str],
) -> dict[str, Any]:
    """Return the content of `FORMAT.json`, see the module's docstring.

    Args:
        kind: one of `FORMATS`.
        weights, tokenizer: the model.
        digest: SHA-256 of its `model.safetensors`.
        files: name -> SHA-256 of the files that the format adds to the folder.
        details: tower -> more entries: `parity`, and those that the format adds.
        packages: the packages whose versions to list.
    """
    data, words = weights.config["data"], weights.config["tokenizer"]
    return {
        "format": kind,
        "made_by": {name: metadata.version(name) for name in ("vclip_jax", *packages)},
        "weights": {"file": folder.MODEL, "sha256": digest},
        "files": dict(files),
        "logit_scale": float(np.exp(weights.arrays["logit_scale"])),
        "towers": {
            tower.name: {
                "file": f"{tower.name}.{kind}",
                "input": {
                    "name": tower.input_name,
                    "shape": ["batch", *tower.shape],
                    "type": jnp.dtype(tower.dtype).name,
                    "meaning": tower.meaning,
                },
                "output": {
                    "name": "embeddings",
                    "shape": ["batch", weights.config["model"]["embed_dim"]],
                    "type": "float32",
                    "meaning": "unit vectors",
                },
                **details[tower.name],
            }
            for tower in towers(weights.config)
        },
        "preprocessing": {
            "image_size": data["image_size"],
            "fit": data["fit"],
            "decode": data["decode"],
            "enhance": data["enhance"],
            "meaning": f"a photograph as RGB, {_FITS.get(data['fit'], 'made square')}"
            + (", local contrast instead of colours" if data["enhance"] else "")
            + "; see vclip_jax.data.images: decode, fit and enhance",
        },
        "tokenizer": {
            "file": tokenizer.file_name,
            "kind": "WordPiece, BERT's" if tokenizer.file_name == folder.VOCAB else "tokenizers",
            "context_length": words["context_length"],
            "vocab_size": words["vocab_size"],
        },
    }


def save(
    target: Path,
    kind: str,
    weights: Weights,
    tokenizer: Tokenizer,
    write: Callable[[Path], Mapping[str, Call]],
    packages: Sequence[str],
    *,
    card: str,
    prompts: PromptSet | None = None,
    calibrations: Sequence[Calibration] = (),
    details: Mapping[str, Mapping[str, Any]] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Export a model: the portable folder, both towers and `FORMAT.json`.

    Args:
        target: the folder, made if it does not exist.
        kind: one of `FORMATS`.
        weights, tokenizer: the model.
        write: a function that writes `image.FORMAT` and `text.FORMAT` into a folder, and loads
            them from there: tower -> a call.
        packages: the packages whose versions to list.
        card: the model card.
        prompts: the prompts that the model is asked by default, or None.
        calibrations: the calibrations of the model's answers.
        details: tower -> entries of `FORMAT.json` that only this format has.
        overwrite: replace existing files.

    Returns:
        The content of `FORMAT.json`.

    Raises:
        ValueError: one line: files exist already, or an exported tower differs from the model. The
            towers in `target` are then unchanged.
        OSError: a file cannot be written.
    """
    check_target(target, kind, overwrite=overwrite)
    folder.check_vocabulary(weights, tokenizer)
    with folder.replaced(target) as part:
        # Compare on the CPU, as accelerators round float32 products in other ways.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            errors = parity(weights, write(part))
        entries = {
            name: {"parity": error, **(details or {}).get(name, {})}
            for name, error in errors.items()
        }
        digests = {path.name: sha256(path) for path in sorted(part.iterdir())}
        folder.write(part, weights, tokenizer, card, prompts, calibrations)
        model = sha256(part / folder.MODEL)
        info = describe(kind, weights, tokenizer, model, digests, entries, packages)
        write_json(part / f"{kind}.json", info)
    _written.add(sha256(target / f"{kind}.json"))
    return info


def check_target(target: Path, kind: str, *, overwrite: bool) -> None:
    """Raise ValueError if `save` must not write to a folder."""
    folder.check_target(target, overwrite=overwrite)
    existing = [path.name for path in files(target, kind)]
    if existing and not overwrite:
        raise ValueError(
            f"{target} already has {', '.join(existing)}: pass --overwrite to replace them"
        )


def files(target: Path, kind: str) -> list[Path]:
    """Return the files of a format in a folder: towers (for ONNX up to two files each) and JSON."""
    return sorted(
        path
        for pattern in (f"image.{kind}*", f"text.{kind}*", f"{kind}.json")
        for path in target.glob(pattern)
    )


def read_info(source: str | Path, kind: str) -> dict[str, Any]:
    """Read and check an exported folder's `FORMAT.json`.

    Raises:
        ValueError: one line: the file is missing or damaged, the towers were made from other
            weights than the folder's, or are not the files that it names.
    """
    source = Path(source)
    folder.complete(source)
    path = source / f"{kind}.json"
    try:
        info = read_json(path)
        digest, digests = info["weights"]["sha256"], dict(info.get("files", {}))
        names = [info["towers"][name]["file"] for name in ("image", "text")]
    except FileNotFoundError as error:
        raise ValueError(
            f"there is no {path}: make it with `vclip export --format {kind}`"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): export the model again") from error
    if digest != sha256(source / folder.MODEL):
        raise ValueError(
            f"{path} was made from other weights than the {folder.MODEL} in this folder: export it "
            f"again with --format {kind} --overwrite"
        )
    if names != [f"image.{kind}", f"text.{kind}"] or not set(names) <= set(digests):
        raise ValueError(
            f"{path} lacks the SHA-256 of both towers, as files of earlier versions do: export the "
            "model again"
        )
    for tower in files(source, kind):
        if tower != path and digests.get(tower.name) != sha256(tower):
            raise ValueError(f"{tower} is damaged or not the one of {path}: export the model again")
    if missing := [name for name in digests if not (source / name).is_file()]:
        raise ValueError(f"there is no {source / missing[0]}: export the model again")
    return info


def was_written_here(source: str | Path, kind: str) -> bool:
    """Return whether this process wrote the folder's `FORMAT.json`, or one of the same content."""
    return sha256(Path(source) / f"{kind}.json") in _written


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Raises:
        ValueError: there is no such file.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ValueError(f"there is no {path}: an exported folder needs it") from error
