"""The configs of `docs/extending.md`: each adds a part of its own, is accepted, and works."""

import re
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from vclip_jax.config import checks
from vclip_jax.config.command_line import check_recipe
from vclip_jax.data.images.augment import AUGMENTATIONS, named_policy
from vclip_jax.data.images.decode import decode, decode_whole
from vclip_jax.data.images.fit import FITS
from vclip_jax.data.images.preprocess import preprocess_file
from vclip_jax.data.pipeline import train_batches
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.devices import sharding
from vclip_jax.evaluation import tasks
from vclip_jax.evaluation.embedded import Embedded
from vclip_jax.evaluation.measurement import Measurement
from vclip_jax.models import kinds
from vclip_jax.models.flops import step_flops
from vclip_jax.models.rng import seeded
from vclip_jax.train import optim
from vclip_jax.train.build import make_training, model_maker

PAGE = Path(__file__).parents[1] / "docs/extending.md"
BLOCKS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE.read_text(), re.S))
REGISTRIES = (
    kinds.LOSSES,
    kinds.IMAGE_TOWERS,
    kinds.IMAGE_POOLS,
    kinds.TEXT_TOWERS,
    kinds.TEXT_POOLS,
    AUGMENTATIONS,
    FITS,
    optim.OPTIMIZERS,
    tasks.EVALUATIONS,
)


@pytest.fixture
def recipe(tmp_path):
    """Loads a config of the page by its name, checked and small."""
    before = [dict(registry) for registry in REGISTRIES]

    def load(name: str):
        path = tmp_path / f"{name}.py"
        path.write_text(BLOCKS[name])
        config = check_recipe(str(path))
        config.data.dataset = "synthetic/synfundus_like-32px-60-s0"
        check(config)
        config.update_from_flattened_dict(
            {
                "data.image_size": 32,
                "model.embed_dim": 8,
                "model.vision_width": 8,
                "model.text_width": 16,
                "model.text_layers": 1,
                "model.text_mlp_width": 32,
                "global_batch_size": 8,
                "model.whiten_pairs": 0,
            }
        )
        return config

    yield load
    for registry, content in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(content)


def train_one_step(config) -> dict[str, float]:
    """Metrics of a step on random pairs; fails where no parameter moved."""
    mesh = sharding.make_mesh(1)
    training = make_training(config, mesh, vocab_size=50)
    state = jax.jit(training.init, out_shardings=training.placement)()
    before = jax.device_get(state.params)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "tokens": rng.integers(1, 50, (8, 52)).astype(np.int32),
        "key_hash": np.arange(8, dtype=np.uint32),
        "caption_id": np.arange(8, dtype=np.int32),
    }
    batch = jax.device_put(batch, NamedSharding(mesh, sharding.BATCH))
    state, metrics = training.step(state, batch)
    after = jax.device_get(dict(state.params))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
    assert max(jax.tree.leaves(moved["visual"])) > 0
    assert max(jax.tree.leaves(moved["text_projection"])) > 0
    return {name: float(value) for name, value in metrics.items()}


def test_every_registry_of_the_table_has_an_example():
    named = re.findall(r"^\| `config[^|]*\| `vclip_jax\.[\w.]*\.(\w+)` \|", PAGE.read_text(), re.M)
    assert len(named) == len(REGISTRIES)
    for name in named:
        assert any(f"{name}[" in block for block in BLOCKS.values()), name


def test_a_loss_an_optimizer_and_towers_of_ones_own_train(recipe):
    config = recipe("own_towers")
    config.loss.kind = recipe("own_loss").loss.kind
    config.optimizer.kind = recipe("own_optimizer").optimizer.kind
    assert 0 < train_one_step(config)["loss"] < 2
    assert step_flops(config.model, image_size=32, context_length=52, global_batch=8) is None


def test_pools_of_ones_own_pool(recipe, random_variables):
    make = model_maker(recipe("own_pools"), 50)
    model = nnx.eval_shape(lambda: make(seeded(0)))
    assert type(model.visual.attnpool).__name__ == "Largest"
    graphdef, *variables = random_variables(make)
    encode = jax.jit(lambda variables, x: nnx.merge(graphdef, *variables).encode_text(x))
    tokens = np.array([[2, 7, 3, 0], [2, 7, 3, 9]], np.int32)
    shorter = encode(variables, tokens[:1, :3])
    np.testing.assert_allclose(encode(variables, tokens)[:1], shorter, rtol=1e-5, atol=1e-6)


def photograph(height: int = 40, width: int = 60) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_a_fit_of_ones_own_is_what_models_train_on_and_answer_by(recipe, tmp_path):
    fit = recipe("own_fit").data.fit
    square = decode(photograph(), 32, fit)
    assert square.shape == (32, 32, 3)
    np.testing.assert_array_equal(square, decode_whole(photograph(), 32, fit, "fast"))
    (tmp_path / "a.png").write_bytes(photograph())
    data = {"image_size": 32, "fit": fit, "decode": "exact", "enhance": False}
    seen, picture, _ = preprocess_file(str(tmp_path / "a.png"), data, 16)
    np.testing.assert_array_equal(seen, square)
    assert picture.shape == (16, 16, 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_augmentation_and_a_fit_of_ones_own_reach_threads_and_processes(recipe, workers):
    policy = named_policy(recipe("own_augmentation").data.augment)
    fit = recipe("own_fit").data.fit
    records = [{"image": photograph(), "caption": "正常。", "key": str(n)} for n in range(8)]
    options = {"seed": 0, "global_batch_size": 8, "size": 16, "fit": fit}
    tokenizer = WordPiece.from_captions(["正常。"])
    batches = train_batches(records, tokenizer, augment=policy, num_workers=workers, **options)
    try:
        images = next(batches)["image"]
    finally:
        batches.close()
    plain = decode(photograph(), 16, fit)
    turns = {np.rot90(plain, n).tobytes() for n in range(4)}
    assert {image.tobytes() for image in images} <= turns
    assert len({image.tobytes() for image in images}) > 1


def test_an_evaluation_of_ones_own_gives_figures_of_its_name(recipe):
    entry = recipe("own_evaluation").evals.fives
    task = tasks.ZeroShotTask("fives", None, None, entry.kind)
    measure = Measurement(None, None, [task], None, Path(), None, print)
    embedded = Embedded(np.eye(2, 8, dtype=np.float32), np.array([1, -1], np.int32))
    figures = measure._own_figures((), task, embedded)
    assert figures == {"eval/fives/spread": 0.5, "eval/fives/labelled": 0.5}


def check(config) -> None:
    """All checks that a run makes before it opens data."""
    checks.validate(config, devices=1)
    optim.check_kind(config.optimizer)
    tasks.check_words(config)


@pytest.mark.parametrize(
    "key",
    [
        "loss.kind",
        "data.augment",
        "data.fit",
        "model.vision_kind",
        "model.vision_pool",
        "model.text_kind",
        "model.text_pool",
        "optimizer.kind",
        "evals.fives.kind",
    ],
)
def test_a_name_in_no_registry_is_refused_with_those_that_are(recipe, key):
    config = recipe("own_evaluation")
    config.update_from_flattened_dict({key: "mine"})
    with pytest.raises(ValueError, match=rf"config\.{key}='mine' must be one of \w+"):
        check(config)
