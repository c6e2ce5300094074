"""Names and sizes of the leaves of a tree."""

from typing import Any

import jax


def path_string(path: tuple[Any, ...]) -> str:
    """A key path as `visual/layer1/0/conv1/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def count(tree: Any) -> int:
    """Number of scalars in all the arrays of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
