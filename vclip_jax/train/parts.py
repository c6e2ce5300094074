"""The parameters that are trained, by `config.train`; all others keep their bits.

A tower is trained in full, not at all ("frozen"), in its projection alone ("head"), in its
projection and its last N blocks ("last:N"), or in its projection and low-rank parts of rank R
beside the layers of its blocks ("lora:R"). A block is a residual block of a ResNet or a layer of a
transformer. The norm after the last block is trained with it, as in open_clip's
`lock_image_tower`. Frozen parameters have no gradient and no state in the optimizer, and a batch
norm whose scale is frozen normalises with its running statistics and does not move them.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final

import jax
from flax import nnx

from vclip_jax.devices.tree import path_string
from vclip_jax.models.batch_norm import BatchNorm
from vclip_jax.models.clip import Clip
from vclip_jax.models.low_rank import NAME, add_low_rank

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


def all_is_trained(train: Mapping[str, Any]) -> bool:
    """Return whether `config.train` trains both towers in full."""
    return all(train[tower] == "full" for tower in _TOWERS)


def has_low_rank(train: Mapping[str, Any]) -> bool:
    """Return whether `config.train` gives a tower low-rank parts."""
    return any(_rank(train[tower]) for tower in _TOWERS)


def with_low_rank(make_model: MakeModel, train: Mapping[str, Any]) -> MakeModel:
    """Extend `make_model`: the layers that `config.train` chooses have low-rank parts."""
    if not has_low_rank(train):
        return make_model

    def make(rngs: nnx.Rngs) -> Clip:
        model = make_model(rngs)
        add_low_rank(model, partial(_rank_of, train), train["lora_alpha"], rngs=rngs)
        return model

    return make


def _rank(choice: str) -> int:
    return int(choice.removeprefix("lora:")) if choice.startswith("lora:") else 0


def _rank_of(train: Mapping[str, Any], layer: str) -> int:
    """Return the rank of a layer's low-rank part; 0 without one, or outside the blocks."""
    if not _BLOCK.match(layer) or not re.search(train["lora_targets"], layer):
        return 0
    return next((_rank(train[tower]) for tower, p in _TOWERS.items() if p.match(layer)), 0)


def names_in(params: Any) -> list[str]:
    """Return the names of the leaves of a tree, such as `visual/layer1/0/conv1/kernel`."""
    return [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def trained_names(train: Mapping[str, Any], names: Iterable[str]) -> frozenset[str]:
    """Return the names of the parameters to train.

    Args:
        train: `config.train`.
        names: the names of all parameters of the model of `with_low_rank`, see `names_in`.

    Raises:
        ValueError: one line: a tower has no projection, fewer blocks than are named, or no layer
            that gets a low-rank part.

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


def check_statistics(model: nnx.Module, trained: Collection[str]) -> None:
    """Refuse to freeze statistics of a layer that is not our batch norm, such as flax's own.

    Args:
        model: the model, or its shapes.
        trained: the names of the parameters to train.

    Raises:
        ValueError: one line that names the layer.
    """
    for path, layer in nnx.iter_modules(model):
        name = "/".join(map(str, path))
        keeps = any(isinstance(value, nnx.BatchStat) for value in vars(layer).values())
        if keeps and not isinstance(layer, BatchNorm) and f"{name}/scale" not in trained:
            raise ValueError(
                f"config.train: the statistics of {name} cannot be frozen, because it is no "
                "vclip_jax.models.batch_norm.BatchNorm: train its tower in full"
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
    if _rank(choice):
        added = {name for name in own if f"/{NAME}/" in name}
        if not added:
            raise ValueError(
                f"{said}: config.train.lora_targets matches no layer in the blocks of this tower"
            )
        return head | added
    count = int(choice.removeprefix("last:"))
    if count > len(blocks):
        raise ValueError(f"{said}: this tower has {len(blocks)} blocks")
    last = tuple(f"{block}/" for block in blocks[-count:])
    return head | {name for name in own if name.startswith(last) or _AFTER_BLOCKS.search(name)}


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in name.split("/")]


def heights(names: Iterable[str]) -> dict[str, int]:
    """Return how far each parameter is from the output of its tower.

    Args:
        names: the names of parameters, see `names_in`.

    Returns:
        Name -> 0 for the projection, the norm before it and what belongs to no tower; 1, 2, ... for
        the last block, the block before it, ...; one more than the first block for all else.

    Examples:
        >>> from vclip_jax.train.parts import heights
        >>> heights(["bert/embeddings/x", "bert/layer/0/x", "bert/layer/1/x", "text_projection"])
        {'bert/embeddings/x': 3, 'bert/layer/0/x': 2, 'bert/layer/1/x': 1, 'text_projection': 0}
    """
    found = dict.fromkeys(names, 0)
    for tower, pattern in _TOWERS.items():
        own = [name for name in found if pattern.match(name)]
        of_block = {name: match[1] for name in own if (match := _BLOCK.match(name))}
        blocks = sorted(set(of_block.values()), key=_by_number, reverse=True)
        for name in own:
            if name in of_block:
                found[name] = 1 + blocks.index(of_block[name])
            elif not _HEADS[tower].match(name) and not _AFTER_BLOCKS.search(name):
                found[name] = 1 + len(blocks)
    return found


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
