"""Chinese-CLIP's own models and ours with the same weights, and a table of what was measured."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "embed_dim": 16,
        "image_resolution": 64,
        "vision_layers": [2, 1, 1, 1],
        "vision_width": 8,
        "vision_patch_size": None,
        "vocab_size": 60,
        "text_hidden_size": 32,
        "text_intermediate_size": 64,
        "text_max_position_embeddings": 24,
        "text_num_attention_heads": 2,
        "text_num_hidden_layers": 2,
    },
    "tiny ViT": {
        "embed_dim": 16,
        "image_resolution": 32,
        "vision_layers": 2,
        "vision_width": 128,
        "vision_patch_size": 8,
        "vocab_size": 60,
        "text_hidden_size": 32,
        "text_intermediate_size": 64,
        "text_max_position_embeddings": 24,
        "text_num_attention_heads": 2,
        "text_num_hidden_layers": 1,
    },
    "RN50 + RoBERTa-base": {
        "embed_dim": 1024,
        "image_resolution": 224,
        "vision_layers": [3, 4, 6, 3],
        "vision_width": 64,
        "vision_patch_size": None,
        "vocab_size": 21128,
        "text_hidden_size": 768,
        "text_intermediate_size": 3072,
        "text_max_position_embeddings": 512,
        "text_num_attention_heads": 12,
        "text_num_hidden_layers": 12,
    },
    "ViT-B/16 + RBT3": {
        "embed_dim": 512,
        "image_resolution": 224,
        "vision_layers": 12,
        "vision_width": 768,
        "vision_patch_size": 16,
        "vocab_size": 21128,
        "text_hidden_size": 768,
        "text_intermediate_size": 3072,
        "text_max_position_embeddings": 512,
        "text_num_attention_heads": 12,
        "text_num_hidden_layers": 3,
    },
    "ViT-L/14 + RoBERTa-large": {
        "embed_dim": 768,
        "image_resolution": 224,
        "vision_layers": 24,
        "vision_width": 1024,
        "vision_patch_size": 14,
        "vocab_size": 21128,
        "text_hidden_size": 1024,
        "text_intermediate_size": 4096,
        "text_max_position_embeddings": 512,
        "text_num_attention_heads": 16,
        "text_num_hidden_layers": 24,
    },
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fidelity", metavar="FILE", help="write the table of errors to FILE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.parity)


@dataclasses.dataclass
class Table:
    """The worst figure of each comparison, in the order in which they were made."""

    rows: dict[tuple[str, str, str], tuple[float, float, int]]

    def check(self, what: str, model: str, figure: str, value: float, bound: float) -> None:
        """Note a figure, then hold it against its bound."""
        worst, _, times = self.rows.get((what, model, figure), (0.0, bound, 0))
        self.rows[what, model, figure] = (max(worst, value), bound, times + 1)
        assert value <= bound, f"{what}, {model}: {figure} {value:.3g} > {bound:.3g}"

    def markdown(self) -> str:
        lines = [
            "| compared | model | figure | worst | bound | comparisons |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {what} | {model} | {figure} | {worst:.2g} | {bound:.2g} | {times} |"
            for (what, model, figure), (worst, bound, times) in self.rows.items()
        ]
        return "\n".join(lines)


_TABLE = Table({})


@pytest.fixture(scope="session")
def table() -> Table:
    """Where comparisons note their figures."""
    return _TABLE


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not _TABLE.rows:
        return
    terminalreporter.write_line("\n" + _TABLE.markdown())
    if path := config.getoption("--fidelity", default=None):
        Path(path).write_text(page(_TABLE))


def page(table: Table) -> str:
    """docs/fidelity.md."""
    import importlib.metadata

    packages = (
        "cn-clip",
        "open_clip_torch",
        "timm",
        "transformers",
        "torch",
        "torchvision",
        "jax",
        "flax",
        "optax",
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        "# Fidelity\n\n"
        "`make parity` writes this page: it measures how far our results are from the reference\n"
        "implementations. Nothing here is filled in by hand.\n\n"
        "- Chinese-CLIP: its own code, `cn_clip` on PyTorch.\n"
        "- CLIP and BiomedCLIP: `open_clip` and `transformers`.\n"
        "- FLAIR: its parts, torchvision's ResNet-50 and a BERT of `transformers`.\n\n"
        "Both sides use the same random weights, in float32, on a CPU.\n\n"
        f"Measured {time.strftime('%Y-%m-%d')} with {versions}.\n\n"
        f"{table.markdown()}\n\n"
        "A relative error is the largest difference divided by the largest value. Gradients and\n"
        "parameters are compared tensor by tensor; the table gives the worst tensor. The bias of\n"
        "the keys in attention has no gradient but rounding errors, because softmax does not\n"
        "depend on it: its gradient must be negligible instead.\n\n"
        "In float32, gradients of a deep network with ReLU are only as accurate as the table\n"
        "shows for PyTorch against itself, because signs flip near zero. Both sides agree in\n"
        "float64, and in float32 with SiLU in place of ReLU.\n\n"
        f"{CHOICES}"
    )


CHOICES = """## Choices

Where implementations differ, a key decides. `configs/visionclip.py` follows the reference.

| key | the reference (Chinese-CLIP) | our default |
|---|---|---|
| `optimizer.no_decay` | by name: no decay for names with "bn", "ln", "bias", "logit_scale"; \
BERT's LayerNorm scales, `downsample.1` and embeddings are decayed | the same |
| `optimizer.gather_gradient` | embeddings of other devices carry no gradient by default | they \
carry gradients |
| `model.batch_norm` | statistics of each device's part; the first device's are kept | statistics \
of the global batch |
| `optimizer.clamp` | clips the parameter after the step | the same |
| `model.half_init` | initial weights are rounded to float16 | not rounded |
| `model.text_dropout` | 0.1 on embeddings, attention and both residuals | the same |
| `data.augment` | none, or `chinese_clip` with `--use-augment` | none |
"""


@pytest.fixture(scope="session")
def reference() -> Callable[..., Any]:
    """Builds `cn_clip`'s model of a size with a seed, no weight of it trivial, in train mode.

    `initial=True` leaves the initial weights as they are.
    """
    torch = pytest.importorskip("torch", reason="needs the [parity] extra: torch")
    model_lib = pytest.importorskip(
        "cn_clip.clip.model", reason="needs the [parity] extra: cn-clip"
    )

    def build(size: str, seed: int, initial: bool = False) -> Any:
        torch.manual_seed(seed)
        model = model_lib.CLIP(
            **SIZES[size],
            text_attention_probs_dropout_prob=0.0,
            text_hidden_act="gelu",
            text_hidden_dropout_prob=0.0,
            text_initializer_range=0.02,
            text_type_vocab_size=2,
        ).train()
        if initial:
            return model
        with torch.no_grad():
            for name, value in [*model.named_parameters(), *model.named_buffers()]:
                if name == "logit_scale" or not value.is_floating_point():
                    continue
                if name.endswith("running_var"):
                    value.uniform_(0.5, 1.5)
                elif value.ndim == 1:  # norms, biases, running means
                    value.add_(0.1 * torch.randn_like(value))
                if name.endswith("bn3.weight"):
                    value.add_(0.3)
        return model

    return build


@pytest.fixture(scope="session")
def make_clip() -> Callable[[str], Callable[[Any], Any]]:
    """A function from a size to one from `nnx.Rngs` to our model."""
    from vclip_jax.models.bert import BertConfig
    from vclip_jax.models.clip import Clip

    def of_size(size: str, dtype: Any = np.float32) -> Callable[[Any], Any]:
        kwargs = SIZES[size]
        layers = kwargs["vision_layers"]
        text = BertConfig(
            vocab_size=kwargs["vocab_size"],
            width=kwargs["text_hidden_size"],
            layers=kwargs["text_num_hidden_layers"],
            heads=kwargs["text_num_attention_heads"],
            mlp_width=kwargs["text_intermediate_size"],
            max_positions=kwargs["text_max_position_embeddings"],
            dropout=0.0,
        )
        return lambda rngs: Clip(
            embed_dim=kwargs["embed_dim"],
            image_size=kwargs["image_resolution"],
            vision_layers=(layers,) if isinstance(layers, int) else tuple(layers),
            vision_width=kwargs["vision_width"],
            vision_patch_size=kwargs["vision_patch_size"] or 16,
            text=text,
            dtype=dtype,
            rngs=rngs,
        )

    return of_size


@pytest.fixture(scope="session")
def ours(make_clip) -> Callable[..., tuple[Any, Any, Any]]:
    """`(graphdef, params, batch_stats)` of our model of a size, with weights of the reference."""
    from flax import nnx

    from vclip_jax.interop import names
    from vclip_jax.models.build import split_model

    def build(size: str, model: Any, dtype: Any = np.float32) -> tuple[Any, Any, Any]:
        shapes = split_model(nnx.eval_shape(lambda: make_clip(size, dtype)(nnx.Rngs(0))))
        weights = names.from_reference(
            {
                name: value.detach().numpy()
                for name, value in model.state_dict().items()
                if "bert.pooler" not in name
            },
            names.flatten(*shapes[1:]),
            origin="cn_clip",
        )
        return shapes[0], *names.unflatten(weights)

    return build


@pytest.fixture(scope="session")
def batch() -> Callable[..., dict[str, np.ndarray]]:
    """uint8 images and padded token rows that fit a size."""

    def make(size: str, n: int, seed: int) -> dict[str, np.ndarray]:
        kwargs, rng = SIZES[size], np.random.default_rng(seed)
        side = kwargs["image_resolution"]
        length = min(52, kwargs["text_max_position_embeddings"])
        coarse = rng.integers(0, 200, (n, 8, 8, 3))
        image = np.kron(coarse, np.ones((1, side // 8, side // 8, 1), int))
        image = image + rng.integers(0, 56, image.shape)
        real = np.arange(length) < rng.integers(3, length + 1, (n, 1))
        tokens = rng.integers(1, kwargs["vocab_size"], (n, length)) * real
        return {"image": image.astype(np.uint8), "tokens": tokens.astype(np.int32)}

    return make


def relative(got: Any, want: Any) -> float:
    """The largest difference over the largest value."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Any, Any], float]:
    """The largest difference over the largest value."""
    return relative
