"""`vclip_jax.load`: the model of a folder or workdir, with its own preprocessing and words."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import vclip_jax
from vclip_jax import prompts
from vclip_jax.data.decode import ImageError, decode
from vclip_jax.interop import folder
from vclip_jax.interop.weights import make_clip
from vclip_jax.state import split_model


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Paths of five PNGs of various shapes."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for index in range(5):
        pixels = np.kron(rng.integers(0, 256, (6, 5 + index, 3)), np.ones((20, 20, 1)))
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{index}.png")
    return sorted(root.iterdir())


@pytest.fixture(scope="module")
def clip(portable_folder):
    return vclip_jax.load(portable_folder)


def test_images_become_the_models_unit_vectors_however_they_are_given(
    clip, photographs, portable_folder
):
    embeddings = clip.encode_image(photographs)
    assert embeddings.shape == (5, clip.embed_dim)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)

    weights, _ = folder.load(portable_folder)
    graphdef, _, _ = split_model(nnx.eval_shape(lambda: make_clip(weights.config, nnx.Rngs(0))))
    squares = np.stack([decode(path.read_bytes(), 64, "squash") for path in photographs])
    expected = nnx.merge(graphdef, *weights.variables).encode_image(jnp.asarray(squares))
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=2e-6)

    mixed = [
        str(photographs[0]),
        Image.open(photographs[1]),
        np.asarray(Image.open(photographs[2])),
        *photographs[3:],
    ]
    np.testing.assert_array_equal(clip.encode_image(mixed), embeddings)
    same = np.stack([np.asarray(Image.open(photographs[0]))] * 2)
    np.testing.assert_allclose(clip.encode_image(same), embeddings[[0, 0]], rtol=0, atol=2e-6)


def test_more_images_than_a_batch_are_the_same(clip, photographs, monkeypatch):
    embeddings = clip.encode_image(photographs)
    monkeypatch.setattr(clip, "batch_size", 2)
    np.testing.assert_allclose(clip.encode_image(photographs), embeddings, rtol=0, atol=2e-6)


def test_nothing_gives_no_rows(clip):
    assert clip.encode_image([]).shape == (0, clip.embed_dim)
    assert clip.encode_text([]).shape == (0, clip.embed_dim)


def test_an_enhancing_model_enhances(tiny_weights, tokenizer, tmp_path, photographs):
    weights = tiny_weights()
    weights.config["data"] |= {"enhance": True, "fit": "pad"}
    folder.save(tmp_path / "m", weights, tokenizer, origin="test")
    enhancing = vclip_jax.load(tmp_path / "m")
    from vclip_jax.data.enhance import enhance

    expected = enhance(decode(photographs[0].read_bytes(), 64, "pad"))
    np.testing.assert_array_equal(enhancing.preprocess(photographs[0]), expected)


@pytest.mark.parametrize(
    "given",
    [
        ["正常", "青光眼"],
        {"正常": "正常", "青光眼": ["青光眼"]},
        prompts.from_phrases({"正常": ["正常"], "青光眼": ["青光眼"]}),
    ],
)
def test_probabilities_are_a_softmax_of_scaled_cosines(clip, photographs, given):
    images, texts = clip.encode_image(photographs), clip.encode_text(["正常", "青光眼"])
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-6)
    logits = np.exp(np.float64(clip.logit_scale)) * (images.astype(np.float64) @ texts.T)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(clip.classify(photographs, given), expected, rtol=1e-5)


def test_named_prompt_sets_serve(clip, photographs):
    probabilities = clip.classify(photographs[:1], "zh/fives")
    assert probabilities.shape == (1, len(prompts.load("zh/fives").class_names))


def test_single_items_are_not_taken_for_sequences(clip, photographs):
    with pytest.raises(TypeError, match=r"encode_text takes a sequence.*\[item\]"):
        clip.encode_text("正常")
    for single in (photographs[0], np.zeros((8, 8, 3), np.uint8), Image.new("RGB", (8, 8))):
        with pytest.raises(TypeError, match=r"encode_image takes a sequence.*\[item\]"):
            clip.encode_image(single)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), TypeError, r"image 1 is float32 \[8, 8, 3\]"),
        (np.zeros((8, 8), np.uint8), TypeError, r"image 1 is uint8 \[8, 8\]"),
        (np.zeros((0, 8, 3), np.uint8), TypeError, r"image 1 is uint8 \[0, 8, 3\]"),
        (7, TypeError, "image 1 is a int"),
        ("nowhere.jpg", ImageError, r"nowhere\.jpg: cannot read the file: No such file"),
        (Image.new("F", (8, 8)), ImageError, "image 1: 32-bit samples"),
    ],
)
def test_what_is_no_image_is_named(clip, image, error, message):
    with pytest.raises(error, match=message):
        clip.encode_image([np.zeros((8, 8, 3), np.uint8), image])


def test_a_damaged_file_is_named(clip, tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, "JPEG")
    (tmp_path / "half.jpg").write_bytes(buffer.getvalue()[:-400])
    with pytest.raises(ImageError, match=r"half\.jpg: cannot read the image"):
        clip.encode_image([tmp_path / "half.jpg"])


def test_text_towers_and_absent_models_are_refused(tmp_path, tiny_weights, tokenizer):
    folder.save(tmp_path / "t", tiny_weights("text"), tokenizer, origin="test")
    with pytest.raises(ValueError, match="text tower alone"):
        vclip_jax.load(tmp_path / "t")
    with pytest.raises(ValueError, match=r"there is no owner/model.*hub:owner/model"):
        vclip_jax.load("owner/model")
    with pytest.raises(ValueError, match=r"it lacks config\.json"):
        vclip_jax.load(tmp_path)


def test_a_portable_folder_has_no_steps_to_choose_from(portable_folder, clip):
    assert clip.step is None
    with pytest.raises(ValueError, match="portable folder, which has one model and no step best"):
        vclip_jax.load(portable_folder, step="best")


def test_the_hub_is_asked_for_the_folders_files_alone(monkeypatch, portable_folder, clip):
    asked = []

    def snapshot_download(repository, allow_patterns):
        asked.append((repository, sorted(allow_patterns)))
        return str(portable_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    pulled = vclip_jax.load("hub:owner/model")
    assert asked == [("owner/model", sorted(folder.POSSIBLE_FILES))]
    np.testing.assert_array_equal(pulled.encode_text(["正常"]), clip.encode_text(["正常"]))


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ValueError, match=r"cannot get 'owner/model' from the Hub \(no route\)$"):
        vclip_jax.load("hub:owner/model")
