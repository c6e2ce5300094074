"""Names and layouts of weights, here and in the reference's PyTorch checkpoints.

Our name of a weight is its path with dots, `visual.layer1.0.conv1.kernel`; parameters and batch
statistics share these names. Modules are named as in the reference, so that few names differ.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vclip_jax.devices.tree import path_string
from vclip_jax.files.errors import few

MODULES = (
    # ours, theirs
    (".downsample.conv.", ".downsample.0."),
    (".downsample.norm.", ".downsample.1."),
    ("bert.layer.", "bert.encoder.layer."),
    (".attention.self_.", ".attention.self."),
    (".intermediate.", ".intermediate.dense."),
    (".attn.in_proj.", ".attn.in_proj_"),
)
LEAVES = {
    # ours: theirs
    "kernel": "weight",
    "embedding": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
AXES = {
    # rank of a kernel: their axes in our order, our axes in their order
    2: ((1, 0), (1, 0)),  # [in, out] and [out, in]
    4: ((2, 3, 1, 0), (3, 2, 0, 1)),  # HWIO and OIHW
}
STATISTICS = ("mean", "var")
COUNTER = "num_batches_tracked"
"""The count of updates of PyTorch's batch norms; with a fixed momentum nothing reads it."""


class Shaped(Protocol):
    """Anything with a shape: an array, or its description."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""


@dataclass(frozen=True)
class Source:
    """The place of one of our weights in another system's file."""

    names: tuple[str, ...]
    """Their names; several are parts, to be joined along the first axis."""
    transposed: bool = False
    """True if their matrix is the transpose of ours; kernels always are, without this flag."""
    ones: int = 0
    """The number of leading axes of length 1 in their array."""


def reference_name(name: str) -> str:
    """Return the reference's name of one of our weights."""
    module, dot, leaf = name.rpartition(".")
    name = module + dot + LEAVES.get(leaf, leaf)
    for ours, theirs in MODULES:
        name = name.replace(ours, theirs)
    return name


def reference_source(name: str) -> Source:
    """Return the place of one of our weights in the reference's file."""
    return Source((reference_name(name),))


def from_reference(
    found: Mapping[str, Any],
    expected: Mapping[str, Shaped],
    *,
    origin: str,
    source: Callable[[str], Source] = reference_source,
) -> dict[str, np.ndarray]:
    """Convert weights of the reference, or of others, to our names and layout.

    Args:
        found: their name -> array of any floating type; `num_batches_tracked` is skipped.
        expected: our name -> something with the expected shape.
        origin: the name of the file in errors.
        source: our name -> the place in their file.

    Returns:
        Our name -> float32 array, contiguous, a copy.

    Raises:
        ValueError: one line with the first missing, unexpected and mis-shaped weights.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, leaf in expected.items():
        place = source(name)
        axes = (1, 0) if place.transposed else _axes(name, len(leaf.shape), 1)
        shape = tuple(leaf.shape[axis] for axis in axes)
        if len(place.names) > 1:
            shape = (shape[0] // len(place.names), *shape[1:])
        shapes |= dict.fromkeys(place.names, (1,) * place.ones + shape)
    check(
        {name: array for name, array in found.items() if not name.endswith(f".{COUNTER}")},
        shapes,
        origin=origin,
    )
    weights = {}
    for name, leaf in expected.items():
        place = source(name)
        parts = [found[part].reshape(found[part].shape[place.ones :]) for part in place.names]
        array = np.concatenate(parts) if len(parts) > 1 else parts[0]
        axes = (1, 0) if place.transposed else _axes(name, len(leaf.shape), 0)
        weights[name] = np.array(array.transpose(axes), np.float32, order="C")
    return weights


def to_reference(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert our weights to the reference's names and layout (as views), with counters at 0."""
    theirs = {}
    for name, array in weights.items():
        theirs[reference_name(name)] = array.transpose(_axes(name, array.ndim, 1))
        if name.endswith(".var"):
            theirs[reference_name(name.removesuffix("var") + COUNTER)] = np.zeros((), np.int64)
    return theirs


def _axes(name: str, rank: int, direction: int) -> tuple[int, ...]:
    if name.endswith("kernel"):
        return AXES[rank][direction]
    return tuple(range(rank))


def check(
    found: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], *, origin: str
) -> None:
    """Check arrays against expected names and shapes.

    Raises:
        ValueError: one line with the first weights that are missing, unexpected, of another
            shape, not of a floating type or not finite.
    """
    problems = _misnamed(found, expected)
    for name in (name for name in expected if name in found):
        array, shape = found[name], expected[name]
        if not isinstance(array, np.ndarray):
            problems.append(f"{name} is a {type(array).__name__}, not a tensor")
        elif array.shape != shape:
            problems.append(f"{name} has the shape {list(array.shape)}, not {list(shape)}")
        elif not jnp.issubdtype(array.dtype, jnp.floating):
            problems.append(f"{name} is {array.dtype}, not of a floating type")
        elif not np.isfinite(array).all():
            problems.append(f"{name} has values that are NaN or infinite")
    _refuse(problems, origin)


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, origin: str
) -> None:
    """Check the shapes that a file declares against those of a model, before reading arrays.

    Raises:
        ValueError: one line that names the first weights that are missing, unexpected or of another
            shape.
    """
    problems = _misnamed(found, expected)
    problems += [
        f"{name} has the shape {list(found[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    _refuse(problems, origin)


def _misnamed(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    missing = [f"missing {name}" for name in expected if name not in found]
    return missing + [f"unexpected {name}" for name in found if name not in expected]


def _refuse(problems: list[str], origin: str) -> None:
    if problems:
        raise ValueError(
            f"{origin} does not fit, nothing was loaded: {few(problems, between='; ')}"
        )


def flatten(*trees: dict[str, Any]) -> dict[str, Any]:
    """Merge nested dictionaries (`params`, `batch_stats`) into one: dotted name -> leaf, sorted."""
    flat = {
        path_string(path).replace("/", "."): leaf
        for tree in trees
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    return dict(sorted(flat.items()))


def unflatten(weights: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Invert `flatten(params, batch_stats)`, with the keys of `build.split_model`."""
    params: dict[Any, Any] = {}
    batch_stats: dict[Any, Any] = {}
    for name, value in weights.items():
        *parents, leaf = name.split(".")
        node = batch_stats if leaf in STATISTICS else params
        for key in parents:
            node = node.setdefault(int(key) if key.isdigit() else key, {})
        node[leaf] = value
    return params, batch_stats
