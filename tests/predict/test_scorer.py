"""The zero-shot scorer against softmax of cosines in NumPy, on one device and on eight."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from vclip_jax.devices.sharding import make_mesh
from vclip_jax.evaluation.metrics import classification
from vclip_jax.models.clip import normalise_image
from vclip_jax.predict.scorer import Scorer, class_probabilities
from vclip_jax.prompts import Group, PromptSet

LENGTH = 12
BATCH = 16
CLASSES = 3
PROMPTS = PromptSet(
    "test",
    "zh",
    ("normal", "glaucoma", "retinopathy"),
    (("未见异常", "正常眼底"), ("青光眼",), ("糖尿病", "视网膜病变", "微血管瘤", "硬性渗出")),
)
# A few roundings of 2^-24 in unit vectors. Image features are up to thirty times as long as what
# the model below leaves of them.
ROUNDING = {"rtol": 0, "atol": 1e-6}
IMAGE_ROUNDING = {"rtol": 0, "atol": 1e-5}


def tokenize(texts) -> np.ndarray:
    """One token a character, between 1 and 49."""
    rows = np.zeros((len(texts), LENGTH), np.int32)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = [1 + ord(character) % 49 for character in text]
    return rows


def host_batches() -> list[dict[str, np.ndarray]]:
    """Three batches of 37 records in any order; the filling has labels and images of its own."""
    index_of = np.random.default_rng(1).permutation(np.r_[0:37, np.full(11, -1)])
    rng = np.random.default_rng(0)
    batches = []
    for index in index_of.reshape(3, BATCH):
        # Noise under a colour of its own, lest all images look alike.
        image = rng.integers(0, 192, (BATCH, 1, 1, 3)) + rng.integers(0, 64, (BATCH, 32, 32, 3))
        batches.append(
            {
                "image": image.astype(np.uint8),
                "label": rng.integers(0, CLASSES, BATCH).astype(np.int32),
                "index": index.astype(np.int32),
            }
        )
    return batches


HOST = host_batches()
ORDER = np.argsort(np.concatenate([batch["index"] for batch in HOST]))[-37:]
KEPT = {name: np.concatenate([b[name] for b in HOST])[ORDER] for name in ("image", "label")}


@pytest.fixture(scope="module")
def model(tiny_clip, random_variables):
    """Structure and variables of a random model whose images fall into several classes."""
    graphdef, params, batch_stats = random_variables(
        lambda rngs: tiny_clip(rngs, text_pool="mean", vision_pool="mean")
    )
    # Small running variances let differences between images through, and a bias takes away what
    # all images share, lest all of them land on one point.
    batch_stats = jax.tree.map(lambda x: 0.1 * x, batch_stats)
    features = jax.jit(
        lambda images: nnx.merge(graphdef, params, batch_stats).visual(
            normalise_image(images), train=False
        )
    )(HOST[0]["image"])
    params["visual"]["attnpool"]["c_proj"]["bias"] -= features.mean(axis=0)
    return graphdef, params, batch_stats


@pytest.fixture(scope="module")
def scorers(model):
    """Number of devices -> a scorer on that many, variables there and batches there."""

    def build(devices):
        graphdef, *variables = model
        # As the network may order them: every other one, then those between.
        chosen = jax.devices()[:devices]
        mesh = make_mesh(1, [*chosen[::2], *chosen[1::2]])
        assert devices == 1 or list(mesh.devices.flat) != chosen
        scorer = Scorer(graphdef, mesh, tokenize)
        placed = jax.device_put(tuple(variables), NamedSharding(mesh, PartitionSpec()))
        batches = [jax.device_put(batch, scorer.batch_sharding) for batch in HOST]
        return scorer, placed, batches

    return {devices: build(devices) for devices in (1, 8)}


@pytest.fixture(scope="module")
def embedded(scorers):
    """Number of devices -> image embeddings and labels."""
    return {
        devices: scorer.embed_images(variables, batches)
        for devices, (scorer, variables, batches) in scorers.items()
    }


@pytest.fixture(scope="module")
def encode(model):
    """The model's own encoders: `encode("encode_image", images)`, one compile for each shape."""
    graphdef, *variables = model
    run = jax.jit(
        lambda variables, inputs, method: getattr(nnx.merge(graphdef, *variables), method)(inputs),
        static_argnums=2,
    )
    return lambda method, inputs: np.asarray(run(variables, inputs, method), np.float64)


@pytest.fixture(scope="module")
def reference(encode) -> np.ndarray:
    """Class probabilities of the kept images, from the model's embeddings on, in float64."""
    images = encode("encode_image", KEPT["image"])
    texts = encode("encode_text", tokenize([text for texts in PROMPTS.prompts for text in texts]))
    means = [texts[:2].mean(axis=0), texts[2], texts[3:].mean(axis=0)]
    classes = np.stack([mean / np.linalg.norm(mean) for mean in means])
    return scipy.special.softmax(images @ classes.T / 0.07, axis=1)


DEVICES = pytest.mark.parametrize("devices", [1, 8])


@DEVICES
def test_filling_is_dropped_and_rows_come_in_the_order_of_their_records(embedded, encode, devices):
    embeddings, labels = embedded[devices]
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(labels, KEPT["label"])
    np.testing.assert_allclose(embeddings, encode("encode_image", KEPT["image"]), **IMAGE_ROUNDING)


@pytest.mark.parametrize("number", [0, 36, 37])
def test_a_record_that_is_missing_or_comes_twice_is_noticed(scorers, number):
    scorer, variables, batches = scorers[8]
    index = np.where(HOST[0]["index"] == HOST[0]["index"].max(), number, HOST[0]["index"])
    wrong = jax.device_put({**HOST[0], "index": index.astype(np.int32)}, scorer.batch_sharding)
    with pytest.raises(ValueError, match="not embedded, or twice"):
        scorer.embed_images(variables, [wrong, *batches[1:]])


@DEVICES
def test_probabilities_are_the_softmax_of_cosines_with_the_mean_prompt(
    scorers, embedded, reference, devices
):
    scorer, variables, _ = scorers[devices]
    got = scorer.probabilities(variables, embedded[devices][0], PROMPTS)
    assert got.shape == (len(KEPT["label"]), CLASSES)
    # Logits of up to 1 / 0.07 carry 14 times the rounding of the cosines.
    np.testing.assert_allclose(got, reference, rtol=14 * IMAGE_ROUNDING["atol"])
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-6)


def test_metrics_of_the_probabilities_equal_scikit_learns(scorers, embedded, reference):
    scorer, variables, _ = scorers[8]
    embeddings, labels = embedded[8]
    result = classification.classification(
        scorer.probabilities(variables, embeddings, PROMPTS), labels
    )
    predicted = reference.argmax(axis=1)
    assert set(predicted) == set(range(CLASSES))
    assert result["accuracy"] == sklearn.metrics.accuracy_score(labels, predicted)
    want = sklearn.metrics.roc_auc_score(labels, reference, multi_class="ovr", average="macro")
    assert result["auc"] == pytest.approx(want, abs=1e-12)


def test_one_device_and_eight_give_the_same(scorers, embedded):
    np.testing.assert_allclose(embedded[1][0], embedded[8][0], **IMAGE_ROUNDING)
    one, eight = (
        scorers[devices][0].embed_texts(scorers[devices][1], ["青光眼", "黄斑水肿"])
        for devices in (1, 8)
    )
    np.testing.assert_allclose(one, eight, **ROUNDING)


# --- texts ---------------------------------------------------------------------------------------


def sentences(count: int) -> list[str]:
    return ["".join(chr(19968 + (7 * i + j) % 40) for j in range(1 + i % 9)) for i in range(count)]


@pytest.mark.parametrize("count", [1, 64, 65, 130])
def test_the_filling_of_text_batches_does_not_leak(scorers, encode, count):
    scorer, variables, _ = scorers[1]
    texts = sentences(count)
    got = scorer.embed_texts(variables, texts)
    assert got.shape == (count, 8)
    assert got.dtype == np.float32
    want = encode("encode_text", tokenize(sentences(130)))[:count]
    np.testing.assert_allclose(got, want, **ROUNDING)
    np.testing.assert_allclose(got, scorer.embed_texts(variables, texts[::-1])[::-1], **ROUNDING)


def test_a_class_is_the_normalised_mean_of_its_prompts_whatever_their_number(scorers):
    scorer, variables, _ = scorers[1]
    got = scorer.class_embeddings(variables, PROMPTS)
    for row, texts in zip(got, PROMPTS.prompts, strict=True):
        mean = scorer.embed_texts(variables, texts).astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), **ROUNDING)


def test_a_class_is_the_mean_itself_where_the_prompts_say_so(scorers):
    scorer, variables, _ = scorers[1]
    as_it_is = dataclasses.replace(PROMPTS, renormalise=False)
    got = scorer.class_embeddings(variables, as_it_is)
    for row, texts in zip(got, PROMPTS.prompts, strict=True):
        np.testing.assert_allclose(
            row, scorer.embed_texts(variables, texts).mean(axis=0), **ROUNDING
        )
    lengths = np.linalg.norm(got, axis=1)
    assert lengths[0] < 0.999  # two prompts that are not the same
    assert lengths[1] == pytest.approx(1, abs=1e-6)  # one prompt


def test_padding_counts_up_to_the_longest_prompt_of_its_class_where_it_is_to(model):
    graphdef, *variables = model
    seen = []

    class Scribe(Scorer):
        def _embed_tokens(self, variables, tokens):
            seen.append(tokens)
            return super()._embed_tokens(variables, tokens)

    def parts(count_padding):
        scorer = Scribe(
            graphdef, make_mesh(1, jax.devices()[:1]), tokenize, count_padding=count_padding
        )
        return scorer.prompt_embeddings(tuple(variables), PROMPTS), scorer

    plain, _ = parts(False)
    counted, scorer = parts(True)
    lengths = [[len(text) for text in texts] for texts in PROMPTS.prompts]
    rows = iter(seen[1])
    for own in lengths:
        for length in own:
            row = next(rows)
            assert (row[:length] > 0).all()
            assert (row[length : max(own)] == -1).all()
            assert (row[max(own) :] == 0).all()
    for own, a, b in zip(lengths, plain, counted, strict=True):
        for length, without, having in zip(own, a, b, strict=True):
            assert (np.abs(without - having).max() > 1e-4) == (length < max(own))
    # A text that is embedded for itself has no padding, whoever its neighbours are.
    texts = [text for texts in PROMPTS.prompts for text in texts]
    alone = scorer.embed_texts(tuple(variables), texts)
    np.testing.assert_allclose(alone, np.concatenate(plain), **ROUNDING)


def test_probabilities_follow_the_length_of_a_mean_that_is_left_as_it_is(scorers, embedded):
    scorer, variables, _ = scorers[1]
    images = embedded[1][0]
    got = scorer.probabilities(variables, images, dataclasses.replace(PROMPTS, renormalise=False))
    means = [scorer.embed_texts(variables, texts).mean(axis=0) for texts in PROMPTS.prompts]
    want = scipy.special.softmax(images.astype(np.float64) @ np.stack(means).T / 0.07, axis=1)
    np.testing.assert_allclose(got, want, rtol=14 * IMAGE_ROUNDING["atol"])


def test_groups_do_not_change_class_probabilities(scorers, embedded):
    scorer, variables, _ = scorers[1]
    groups = (Group("healthy", (0,)), Group("ill", (1, 2)))
    grouped = PromptSet("test", "zh", PROMPTS.class_names, PROMPTS.prompts, groups)
    one, other = (scorer.probabilities(variables, embedded[1][0], p) for p in (PROMPTS, grouped))
    np.testing.assert_array_equal(one, other)


def test_a_larger_scale_sharpens_without_changing_the_order():
    rng = np.random.default_rng(1)
    images, classes = rng.standard_normal((2, 5, 4)).astype(np.float32)
    soft, sharp = (np.asarray(class_probabilities(images, classes, scale)) for scale in (0.0, 2.0))
    np.testing.assert_array_equal(np.argsort(soft, axis=1), np.argsort(sharp, axis=1))
    assert (sharp.max(axis=1) > soft.max(axis=1)).all()
    want = scipy.special.softmax(np.exp(2.0) * images.astype(np.float64) @ classes.T, axis=1)
    np.testing.assert_allclose(sharp, want, rtol=3e-5)


def test_cosines_are_those_of_float32_on_every_platform():
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((4, 8), (3, 8), ())]
    lowered = class_probabilities.trace(*shapes).lower(lowering_platforms=("tpu",)).as_text()
    assert "precision = [HIGHEST, HIGHEST]" in lowered
