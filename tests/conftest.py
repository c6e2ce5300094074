"""Eight virtual CPU devices and a compilation cache for all tests; what several of them share."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from PIL import Image

# JAX reads its variables on import. Subprocesses that tests start inherit them.
if "jax" in sys.modules:
    raise RuntimeError("JAX was imported before tests/conftest.py could configure it")
# Tests run small programs a few times: what counts is the compiler's time.
os.environ["XLA_FLAGS"] = (
    f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')} "
    "--xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parent.parent / ".jax_cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


# Start these first, so that no worker is left with them at the end.
LONGEST = (
    "test_main.py",
    "test_step.py",
    "test_towers.py",
    "test_trackers.py",
    "test_earlier_version.py",
    "test_systems.py",
    "test_whitening.py",
    "test_checkpoint.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("repository", deadline=None)
hypothesis.settings.load_profile("repository")


@pytest.fixture(autouse=True)
def _handlers_of_its_own() -> Iterator[None]:
    """Take away the log handlers that a test has added, such as absl's."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    root.handlers[:] = before


@pytest.fixture(scope="session")
def mesh_orders() -> dict[str, list[int]]:
    """Slice -> whose chip stands at each place of its mesh, as libtpu's topologies have them.

    All that differ up to 32 chips; `test_sharding.py` compares them with libtpu's own.
    """
    square = [0, 0, 1, 1, 1, 1, 0, 2, 3, 3, 3, 3, 2, 2, 2, 0]
    blocks = [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
    return {
        "v5e:2x2": [0] * 4,
        "v5e:2x4": [0] * 4 + [1] * 4,
        "v5p:2x2x2": [0, 1] * 4,
        "v4:2x2x4": [0, 1, 2, 3] * 4,
        "v5e:4x4": square,
        "v5e:4x4 fsdp=4": blocks,
        "2xv5e:4x4": square + [4 + process for process in square],
        "v5e:4x8": [0, 0, 2, 2, 4, 4, 6, 6] * 2 + [1, 1, 3, 3, 5, 5, 7, 7] * 2,
        "v5e:4x8 fsdp=4": blocks + [4 + process for process in blocks],
    }


@pytest.fixture(scope="session")
def tiny_clip() -> Callable[..., Any]:
    """Makes a CLIP of 32 x 32 pixels and a vocabulary of 50, without dropout, from `nnx.Rngs`.

    Keyword arguments replace those of `Clip`, and those of `BertConfig` if they start with `text_`.
    """
    from vclip_jax.models.bert import BertConfig
    from vclip_jax.models.clip import Clip

    def make(rngs, **changes):
        text = {
            "vocab_size": 50,
            "width": 16,
            "layers": 1,
            "heads": 2,
            "mlp_width": 32,
            "max_positions": 12,
            "dropout": 0.0,
        }
        vision = {
            "embed_dim": 8,
            "image_size": 32,
            "vision_layers": (1, 1, 1, 1),
            "vision_width": 8,
        }
        for name, value in changes.items():
            target = text if name.startswith("text_") else vision
            target[name.removeprefix("text_")] = value
        return Clip(**vision, text=BertConfig(**text), rngs=rngs)

    return make


@pytest.fixture(scope="session")
def random_variables() -> Callable[..., tuple[Any, Any, Any]]:
    """Structure, parameters and batch statistics of a module that a function of `rngs` makes.

    The numbers are NumPy's, which spares compiling an initialiser for every shape. Unlike initial
    values no bias, mean or scale is trivial.
    """
    import jax
    from flax import nnx

    from vclip_jax.devices.tree import path_string
    from vclip_jax.models.build import split_model
    from vclip_jax.models.rng import seeded

    def draw(make, seed: int = 0):
        graphdef, params, batch_stats = split_model(nnx.eval_shape(lambda: make(seeded(0))))
        rng = np.random.default_rng(seed)

        def value(path, leaf):
            name = path_string(path).rpartition("/")[2]
            drawn = rng.standard_normal(leaf.shape)
            if name in ("scale", "var"):
                drawn = rng.uniform(0.5, 1.5, leaf.shape)
            elif name == "logit_scale":
                drawn = np.log(1 / 0.07)
            elif name in ("kernel", "text_projection"):
                drawn = drawn / np.sqrt(np.prod(leaf.shape[:-1]))
            else:
                drawn = drawn / 2
            return jax.numpy.asarray(drawn, leaf.dtype)

        params, batch_stats = jax.tree_util.tree_map_with_path(value, (params, batch_stats))
        return graphdef, params, batch_stats

    return draw


# --- A tiny model of Chinese-CLIP's kind.

_VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"视网膜病变正常青光眼"]


@pytest.fixture(scope="session")
def tokenizer():
    """Of a few characters."""
    from vclip_jax.data.text.wordpiece import WordPiece

    return WordPiece(_VOCABULARY)


@pytest.fixture(scope="session")
def chinese():
    """A tokenizer of all characters of the Chinese prompt sets."""
    from vclip_jax import prompts
    from vclip_jax.data.text.wordpiece import WordPiece

    sets = [prompts.load(name) for name in prompts.known() if name.startswith("zh")]
    return WordPiece.from_captions(text for own in sets for texts in own.prompts for text in texts)


@pytest.fixture(scope="session")
def tiny_weights() -> Callable[..., Any]:
    """Makes weights of a 64 x 64 pixel model with random numbers.

    Keyword arguments replace values of `model`, and `kind`.
    """
    from vclip_jax.interop.weights import Weights, complete_config, expected_arrays

    def make(kind: str = "clip", seed: int = 0, **changes) -> Weights:
        text = {
            "text_width": 64,
            "text_layers": 2,
            "text_heads": 1,
            "text_mlp_width": 24,
            "text_max_positions": 12,
        }
        vision = {"embed_dim": 10, "vision_layers": [1, 2, 1, 1], "vision_width": 8}
        sections = {"tokenizer": {"context_length": 12, "vocab_size": len(_VOCABULARY)}}
        sections["model"] = {**text, **(vision if kind == "clip" else {}), **changes}
        if kind == "clip":
            sections["data"] = {"image_size": 64}
        config = complete_config({"kind": kind, **sections}, origin="test")
        rng = np.random.default_rng(seed)
        arrays = {
            name: rng.uniform(0.1, 1, leaf.shape).astype(np.float32)
            for name, leaf in expected_arrays(config).items()
        }
        return Weights(config, arrays)

    return make


@pytest.fixture(scope="session")
def portable_folder(tmp_path_factory, tiny_weights, chinese, random_variables) -> Path:
    """A portable folder whose tiny model computes sensible numbers and reads Chinese.

    A vision transformer, as convolutions take longer to compile.
    """
    import jax

    from vclip_jax.interop import folder, names
    from vclip_jax.interop.weights import Weights, complete_config, make_clip

    words = {"context_length": 40, "vocab_size": chinese.vocab_size}
    vision = {"vision_layers": [1], "vision_width": 64, "vision_patch_size": 16}
    small = tiny_weights(text_max_positions=40, **vision).config
    config = complete_config({**small, "tokenizer": words}, origin="test")
    _, params, batch_stats = random_variables(lambda rngs: make_clip(config, rngs))
    arrays = jax.tree.map(np.asarray, names.flatten(params, batch_stats))
    path = tmp_path_factory.mktemp("portable") / "m"
    folder.save(path, Weights(config, arrays), chinese, origin="test")
    return path


@pytest.fixture
def packaged_model(tmp_path_factory, portable_folder, monkeypatch) -> Path:
    """The folder of a packaged model, retina-small: the tiny model, instead of the package's."""
    from vclip_jax.files import packaged

    monkeypatch.setattr(packaged, "ROOT", tmp_path_factory.mktemp("packaged"))
    return packaged.pack(portable_folder, packaged.DEFAULT)


# --- A miniature of IDRiD's disease-grading folder.

_TRAIN = "a. Training Set", "a. IDRiD_Disease Grading_Training Labels.csv"
_TEST = "b. Testing Set", "b. IDRiD_Disease Grading_Testing Labels.csv"


def _photograph(index: int) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "patient name"
    rng = np.random.Generator(np.random.Philox(index))
    pixels = np.kron(rng.integers(0, 256, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, exif=exif, comment=b"patient name")
    return buffer.getvalue()


def _write(root: Path, train: int = 20, test: int = 0) -> Path:
    for (images, labels), count, first in ((_TRAIN, train, 0), (_TEST, test, 1000)):
        if not count:
            continue
        folder = root / "B. Disease Grading" / "1. Original Images" / images
        table = root / "B. Disease Grading" / "2. Groundtruths" / labels
        folder.mkdir(parents=True)
        table.parent.mkdir(parents=True, exist_ok=True)
        lines = ["Image name,Retinopathy grade,Risk of macular edema ,,,,,,,,,"]
        for index in range(count):
            name = f"IDRiD_{index + 1:03}"
            (folder / f"{name}.jpg").write_bytes(_photograph(first + index))
            lines.append(f"{name},{index % 5},{index % 3},,,,,,,,,")
        table.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return root


@pytest.fixture(scope="session")
def write_idrid() -> Callable[..., Path]:
    """Writes the folder into a root, which it returns; `train` and `test` count the images.

    Image i (from 0) has retinopathy grade i % 5, risk of oedema i % 3, and metadata.
    """
    return _write
