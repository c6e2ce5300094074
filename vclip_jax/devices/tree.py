"""Names and sizes of the leaves of a tree."""

from typing import Any

import jax


def path_string(path: tuple[Any, ...]) -> str:
    """Return a key path as text, such as `visual/layer1/0/conv1/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def count(tree: Any) -> int:
    """Return the number of scalars in all arrays of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
