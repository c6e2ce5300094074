"""`vclip_jax.load`: the model of a folder or workdir, with its own preprocessing and words."""

import io
import os

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image, ImageOps

import vclip_jax
from vclip_jax import prompts
from vclip_jax.data.choices import MODES
from vclip_jax.data.images.decode import decode
from vclip_jax.data.images.fit import FITS
from vclip_jax.data.images.opening import ImageError
from vclip_jax.data.images.preprocess import preprocess_file
from vclip_jax.data.pipeline import eval_batches
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.datasets.synthetic.domains import TRAINING_DOMAIN, sample_case
from vclip_jax.datasets.synthetic.render import render
from vclip_jax.interop import folder
from vclip_jax.interop.weights import make_clip
from vclip_jax.models.build import split_model
from vclip_jax.models.rng import seeded


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
    graphdef, _, _ = split_model(nnx.eval_shape(lambda: make_clip(weights.config, seeded(0))))
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


@pytest.fixture(scope="module")
def large_jpegs(tmp_path_factory):
    """Photographs of 1024 px, one of them with the camera held on its side, one progressive."""
    root = tmp_path_factory.mktemp("large")
    pixels = [render(sample_case(TRAINING_DOMAIN, 0, index), 1024) for index in range(2)]
    held = Image.Exif()
    held[0x0112] = 6
    Image.fromarray(pixels[0]).save(root / "0.jpg", quality=90)
    Image.fromarray(pixels[1][:, :900]).save(root / "1.jpg", quality=90, exif=held)
    Image.fromarray(pixels[1]).save(root / "2.jpg", quality=80, progressive=True)
    return sorted(root.iterdir())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fit", FITS)
def test_a_photograph_is_the_same_however_it_comes(clip, large_jpegs, monkeypatch, fit, mode):
    """By path, bytes, Pillow image, array; in `predict`'s processes; and where it is evaluated."""
    monkeypatch.setitem(clip.config["data"], "fit", fit)
    monkeypatch.setitem(clip.config["data"], "decode", mode)
    records = [
        {"image": path.read_bytes(), "caption": "", "key": path.name, "label": 0}
        for path in large_jpegs
    ]
    evaluated = eval_batches(records, global_batch_size=3, size=64, fit=fit, decode=mode)
    for path, square in zip(large_jpegs, next(evaluated)["image"], strict=True):
        upright = ImageOps.exif_transpose(Image.open(path))
        seen = {
            "path": clip.preprocess(path),
            "bytes": clip.preprocess(path.read_bytes()),
            "Pillow": clip.preprocess(Image.open(path)),
            "upright": clip.preprocess(upright),
            "array": clip.preprocess(np.array(upright)),
            "predict": preprocess_file(str(path), clip.config["data"], 0)[0],
        }
        for way, other in seen.items():
            np.testing.assert_array_equal(other, square, err_msg=way)


def test_training_alone_lets_a_jpeg_be_scaled_while_it_is_decoded(clip, large_jpegs, monkeypatch):
    """By little: what a model is asked about is as close to what it learnt."""
    monkeypatch.setitem(clip.config["data"], "decode", "fast")
    trained = decode(large_jpegs[0].read_bytes(), 64, "squash", "fast").astype(int)
    asked = clip.preprocess(large_jpegs[0])
    assert not np.array_equal(trained, asked)
    assert np.abs(trained - asked).mean() < 0.5


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
    from vclip_jax.data.images.enhance import enhance

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


def test_prompts_that_the_model_cannot_read_are_refused_and_doubts_said_once(clip, caplog):
    vectors = np.eye(clip.embed_dim, dtype=np.float32)[:2]
    for ask in (clip.classify, clip.probabilities):
        with pytest.raises(ValueError, match="are the same to this model: its vocabulary lacks"):
            ask(vectors if ask == clip.probabilities else [], ["Glaucoma", "Cataract"])
    with pytest.raises(ValueError, match="differ only after the 38 tokens"):
        clip.probabilities(vectors, ["正常" * 30 + "视", "正常" * 30 + "网"])
    assert not caplog.messages
    for _ in range(2):
        clip.probabilities(vectors, ["正常眼底", "青光眼 Cataract"])
    (said,) = caplog.messages
    assert "the model's vocabulary lacks 12% of the prompts' tokens" in said
    with pytest.raises(ValueError, match="the model knows no word of 'Cataract'"):
        clip.probabilities(vectors, ["正常眼底", "Cataract"])
    caplog.clear()
    clip.encode_text(["Cataract"])
    assert caplog.messages == [
        "the model's vocabulary lacks 100% of the texts' tokens, most in 'Cataract'"
    ]
    caplog.clear()
    clip.encode_text(["正常", "青光眼" * 13])
    (said,) = caplog.messages
    assert said.startswith("1 of 2 texts are cut after 38 tokens; '青光眼青光眼")
    assert said.endswith(" has 39")
    caplog.clear()
    clip.encode_text(["Cataract", "青光眼" * 13], quiet=True)
    assert not caplog.messages


def test_without_prompts_a_model_is_asked_its_own(clip, tiny_weights, tokenizer):
    two = prompts.from_phrases({"healthy": "正常", "ill": "青光眼"})
    own = vclip_jax.Pretrained(tiny_weights(), tokenizer, prompts=two)
    assert own.asked() == two
    assert clip.asked() == prompts.load("zh/fives")
    with pytest.raises(ValueError, match="no prompts of its own and cannot read zh/fives"):
        vclip_jax.Pretrained(tiny_weights(), tokenizer).asked()


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
        (Image.new("RGB", (9000, 9000)), ImageError, "image 1: 9000 x 9000 pixels are more"),
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


def test_a_pillow_image_that_turns_out_to_be_damaged_is_named(clip, tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, "PNG")
    damaged = Image.open(io.BytesIO(buffer.getvalue()[:-400]))
    with pytest.raises(ImageError, match="image 0: "):
        clip.encode_image([damaged])


def test_text_towers_and_absent_models_are_refused(tmp_path, tiny_weights, tokenizer):
    folder.save(tmp_path / "t", tiny_weights("text"), tokenizer, origin="test")
    with pytest.raises(ValueError, match="only a text tower"):
        vclip_jax.load(tmp_path / "t")
    with pytest.raises(ValueError, match=r"there is no owner/model.*hub:owner/model"):
        vclip_jax.load("owner/model")
    with pytest.raises(ValueError, match=r"it lacks config\.json"):
        vclip_jax.load(tmp_path)


def test_a_packaged_model_is_loaded_by_its_name_if_its_files_are_whole(packaged_model, clip):
    named = vclip_jax.load("retina-small")
    np.testing.assert_array_equal(named.encode_text(["正常"]), clip.encode_text(["正常"]))
    (packaged_model / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json is damaged \(its SHA-256"):
        vclip_jax.load("retina-small")
    with pytest.raises(ValueError, match=r"there is no retina-smal: .*folder, or retina-small$"):
        vclip_jax.load("retina-smal")


def test_a_portable_folder_has_no_steps_to_choose_from(portable_folder, clip):
    assert clip.step is None
    with pytest.raises(ValueError, match="portable folder, which has one model and no step best"):
        vclip_jax.load(portable_folder, step="best")


def test_the_hub_is_asked_for_the_folders_files_alone(monkeypatch, portable_folder, clip):
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision, sorted(allow_patterns)))
        return str(portable_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    pulled = vclip_jax.load("hub:owner/model")
    assert asked == [("owner/model", None, sorted(folder.POSSIBLE_FILES))]
    np.testing.assert_array_equal(pulled.encode_text(["正常"]), clip.encode_text(["正常"]))


def test_a_revision_is_asked_for_by_its_name(monkeypatch, portable_folder):
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision))
        return str(portable_folder)

    def hf_hub_download(repository, name, revision):
        asked.append((repository, name, revision))
        return str(portable_folder / name)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    vclip_jax.load("hub:owner/model@v1.0")
    WordPiece.load("hub:owner/model@refs/pr/3")
    WordPiece.load("hub:owner/model")
    assert asked == [
        ("owner/model", "v1.0"),
        ("owner/model", "vocab.txt", "refs/pr/3"),
        ("owner/model", "vocab.txt", None),
    ]
    for load in (vclip_jax.load, WordPiece.load):
        with pytest.raises(ValueError, match="give a branch, a tag or a commit after the @"):
            load("hub:owner/model@")


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ValueError, match=r"cannot get 'owner/model' from the Hub \(no route\)$"):
        vclip_jax.load("hub:owner/model")


def test_a_pipe_among_photographs_is_an_error_with_its_name(tmp_path, clip):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r"a\.jpg: cannot read the file: a pipe, a socket"):
        clip.encode_image([tmp_path / "a.jpg"])
    with open(tmp_path / "b.jpg", "wb") as file:
        file.truncate(300 << 20)
    with pytest.raises(ImageError, match=r"b\.jpg has more than 268,435,456 bytes"):
        clip.encode_image([tmp_path / "b.jpg"])


def test_the_name_of_a_refused_photograph_is_not_logged(clip, tmp_path, caplog):
    path = tmp_path / "Doe_Jane.png"
    Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(path)
    clip.classify([path], "zh/refuge")
    assert "image 0 is refused: " in caplog.text
    assert "Doe" not in caplog.text
