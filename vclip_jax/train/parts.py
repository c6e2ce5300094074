"""The parameters that are trained, by `config.train`; all others keep their bits.

A tower is trained in full, not at all ("frozen"), in its projection alone ("head"), or in its
projection and its last N blocks ("last:N"). A block is a residual block of a ResNet or a layer of a
transformer. The norm after the last block is trained with it, as in open_clip's
`lock_image_tower`. Frozen parameters have no gradient and no state in the optimizer, and a batch
norm whose scale is frozen normalises with its running statistics and does not move them.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import jax
from flax import nnx

from vclip_jax.devices.tree import path_string
from vclip_jax.models.batch_norm import BatchNorm
from vclip_jax.models.clip import Clip

TEXT_TOWERS: Final = ("bert/", "text/")
"""The starts of the names of a text tower's parameters, without its projection."""
_TOWERS: Final = {"image": re.compile("visual/"), "text": re.compile("bert/|text/|text_projection")}
_HEADS: Final = {
    "image": re.compile("visual/(attnpool/|proj(/|$))"),
    "text": re.compile("text_proj"),
}
_AFTER_BLOCKS: Final = re.compile("/(ln_post|ln_final)/")
_BLOCK: Final = re.compile(r"(.+?/\d+)/")

MakeModel = Callable[[nnx.Rngs], Clip]


def all_is_trained(train: Mapping[str, str]) -> bool:
    """Return whether `config.train` trains both towers in full."""
    return set(train.values()) == {"full"}


def names_in(params: Any) -> list[str]:
    """Return the names of the leaves of a tree, such as `visual/layer1/0/conv1/kernel`."""
    return [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def trained_names(train: Mapping[str, str], names: Iterable[str]) -> frozenset[str]:
    """Return the names of the parameters to train.

    Args:
        train: `config.train`.
        names: the names of all parameters, see `names_in`.

    Raises:
        ValueError: one line: a tower has no projection, or fewer blocks than are named.

    Examples:
        >>> from vclip_jax.train.parts import trained_names
        >>> names = ["visual/conv1/kernel", "visual/proj", "bert/layer/0/x", "logit_scale"]
        >>> sorted(trained_names({"image": "head", "text": "frozen"}, names))
        ['logit_scale', 'visual/proj']
    """
    kept = set(names)
    for tower, pattern in _TOWERS.items():
        own = {name for name in kept if pattern.match(name)}
        kept -= own - _trained_in_tower(tower, train[tower], own)
    return frozenset(kept)


def check_statistics(names: Iterable[str], statistics: Iterable[str]) -> None:
    """Refuse to train a part of a tower whose statistics belong to no batch norm with a scale.

    Args:
        names, statistics: the names of all parameters and of all batch statistics.

    Raises:
        ValueError: one line that names the statistic.
    """
    known = set(names)
    for name in statistics:
        if f"{name.rpartition('/')[0]}/scale" not in known:
            raise ValueError(
                f"config.train: {name} is a statistic of no batch norm with a scale, which cannot "
                "be frozen: train both towers in full"
            )


def _trained_in_tower(tower: str, choice: str, own: set[str]) -> set[str]:
    if choice == "full":
        return own
    if choice == "frozen":
        return set()
    said = f"config.train.{tower}={choice!r}"
    head = {name for name in own if _HEADS[tower].match(name)}
    if not head:
        raise ValueError(
            f"{said}: this tower has no parameter called proj or attnpool: choose full or frozen"
        )
    if choice == "head":
        return head
    blocks = sorted({match[1] for name in own if (match := _BLOCK.match(name))}, key=_by_number)
    count = int(choice.removeprefix("last:"))
    if count > len(blocks):
        raise ValueError(f"{said}: this tower has {len(blocks)} blocks")
    last = tuple(f"{block}/" for block in blocks[-count:])
    return head | {name for name in own if name.startswith(last) or _AFTER_BLOCKS.search(name)}


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in name.split("/")]


def with_frozen_statistics(make_model: MakeModel, trained: frozenset[str]) -> MakeModel:
    """Extend `make_model`: batch norms without a trained scale use their running statistics."""

    def make(rngs: nnx.Rngs) -> Clip:
        model = make_model(rngs)
        for path, module in nnx.iter_modules(model):
            if isinstance(module, BatchNorm):
                module.frozen = "/".join([*map(str, path), "scale"]) not in trained
        return model

    return make


def pick(tree: Mapping[Any, Any], keep: Callable[[str], bool], prefix: str = "") -> dict[Any, Any]:
    """Return the leaves of nested dictionaries whose names `keep` accepts, in their places.

    Examples:
        >>> from vclip_jax.train.parts import pick
        >>> pick({"a": {"b": 1, "c": 2}, "d": {"e": 3}}, lambda name: name != "d/e")
        {'a': {'b': 1, 'c': 2}}
    """
    found: dict[Any, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if not isinstance(value, Mapping):
            if keep(name):
                found[key] = value
        elif inner := pick(value, keep, f"{name}/"):
            found[key] = inner
    return found


def joined(some: Mapping[Any, Any], others: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return nested dictionaries with the leaves of both; undoes `pick`.

    Examples:
        >>> from vclip_jax.train.parts import joined
        >>> joined({"a": {"b": 1}}, {"a": {"c": 2}, "d": {"e": 3}})
        {'a': {'b': 1, 'c': 2}, 'd': {'e': 3}}
    """
    whole = dict(some)
    for key, value in others.items():
        whole[key] = joined(whole[key], value) if key in whole else value
    return whole
