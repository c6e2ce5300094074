"""The demo: what its functions answer, what they refuse, and what they keep."""

import io
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import vclip_jax
from vclip_jax import prompts
from vclip_jax.data.images import gate
from vclip_jax.data.images.decode import read_rgb
from vclip_jax.data.images.guarded import Limits
from vclip_jax.data.images.opening import ImageError
from vclip_jax.demo import __main__ as command
from vclip_jax.demo import answers, html, index, reader, uploads
from vclip_jax.evaluation import prompt_sensitivity
from vclip_jax.predict.heat_maps import Explainer, overlay


def encoded(seed: int = 0, kind: str = "JPEG", **options) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(pixels, np.ones((12, 12, 1), np.uint8))).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def clip(portable_folder):
    return vclip_jax.load(portable_folder)


@pytest.fixture(scope="module")
def photograph(clip):
    return answers.read_photograph(clip, encoded())


@pytest.fixture
def folder(tmp_path):
    """A folder with a.jpg, b.png in a subfolder, a copy of a.jpg, and a damaged file."""
    root = tmp_path / "photographs"
    (root / "sub").mkdir(parents=True)
    (root / "a.jpg").write_bytes(encoded(1))
    (root / "sub" / "b.png").write_bytes(encoded(2, "PNG"))
    (root / "copy.jpg").write_bytes(encoded(1))
    (root / "bad.jpg").write_bytes(b"\xff\xd8 no image")
    return root


# --- Photographs and words.


def test_a_photograph_is_what_the_model_sees_and_nothing_else(clip, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "patient name"
    data = encoded(3, exif=exif, comment=b"patient name")
    found = answers.read_photograph(clip, data)
    path = tmp_path / "p.jpg"
    path.write_bytes(data)
    np.testing.assert_array_equal(found.square, clip.preprocess(path))
    np.testing.assert_allclose(found.embedding, clip.encode_image([path])[0], atol=1e-5)
    assert found.picture.shape == (512, 512, 3)
    held = b"".join(np.asarray(v).tobytes() for v in vars(found).values())
    assert b"patient" not in held
    assert "patient" not in html.photograph(found.picture, "")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot read the image"),
        (b"<svg onload='alert(1)'/>", "cannot read the image"),
        (encoded()[:200], "cannot read the image"),
        (bytes(answers.MOST_MEGABYTES * 2**20 + 1), "more than the 20 allowed"),
    ],
)
def test_what_is_no_photograph_is_refused_in_one_line(clip, data, message):
    with pytest.raises(ImageError, match=message) as caught:
        answers.read_photograph(clip, data)
    assert str(caught.value).startswith("this file")
    assert "\n" not in str(caught.value)


def test_many_pixels_in_few_bytes_are_refused(clip):
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 2**20
    with pytest.raises(ImageError, match="400000000 pixels"):
        answers.read_photograph(clip, buffer.getvalue())


def test_a_typed_line_is_a_class_and_bars_part_its_wordings():
    found = answers.typed_prompts("\n 正常 | normal  eye ｜ \n\n青光眼\n")
    assert found.class_names == ("正常", "青光眼")
    assert found.prompts == (("正常", "normal eye"), ("青光眼",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least two prompts"),
        (" | \n\n", "at least two prompts"),
        ("青光眼", "at least two prompts"),
        ("a\nb | b", "line 2 has a wording twice"),
        ("a\n\na | c", "line 3 begins like another line: a"),
        ("a\n" + "b" * 301, "line 2 is too long"),
        ("a\n" + "|".join(map(str, range(21))), "line 2 is too long"),
        ("\n".join(map(str, range(41))), "41 lines, more than the 40"),
        ("\n".join("|".join(f"{c} {w}" for w in range(20)) for c in range(11)), "220 wordings"),
    ],
)
def test_typed_prompts_are_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        answers.typed_prompts(text)
    assert "\n" not in str(caught.value)


# --- Scores, heat maps, neighbours.


def test_scores_are_those_of_classify_with_an_interval_over_single_wordings(clip, photograph):
    prompt_set = prompts.load("zh/idrid")
    answer = answers.score(clip, photograph, prompt_set)
    expected = clip.probabilities(photograph.embedding[None], prompt_set)
    np.testing.assert_allclose([s.probability for s in answer.classes], expected[0], atol=1e-5)
    assert answer.best == expected[0].argmax()
    np.testing.assert_allclose(
        [s.probability for s in answer.groups], prompt_set.group(expected)[0], atol=1e-5
    )
    choices = prompt_sensitivity.choices(prompt_set)["single"]
    assert answer.wordings == len(choices)
    # Each choice by itself, as a prompt set with one prompt a class.
    alone = np.stack(
        [
            clip.probabilities(
                photograph.embedding[None],
                {
                    name: [texts[places[0]]]
                    for name, texts, places in zip(
                        prompt_set.class_names, prompt_set.prompts, choice, strict=True
                    )
                },
            )[0]
            for choice in choices[:: len(choices) // 7]
        ]
    )
    apart = prompt_sensitivity.answers(
        photograph.embedding[None],
        clip.prompt_embeddings(prompt_set),
        prompt_set,
        clip.logit_scale,
        "single",
    )[:, 0]
    np.testing.assert_allclose(apart[:: len(choices) // 7], alone, atol=1e-4)
    for c, score in enumerate(answer.classes):
        assert apart[:, c].min() <= score.low <= score.high <= apart[:, c].max()
        assert (apart[:, c] < score.low).mean() <= 0.05
        assert score.first == pytest.approx((apart.argmax(axis=1) == c).mean())


def test_one_wording_a_class_leaves_no_interval(clip, photograph):
    answer = answers.score(clip, photograph, answers.typed_prompts("正常\n青光眼"))
    assert answer.wordings == 1
    assert all(s.low == s.high == pytest.approx(s.probability) for s in answer.classes)
    assert answer.groups == ()
    page = html.scores(answer)
    assert "no interval" in page
    assert "<small>" not in page


def test_what_the_model_does_not_read_is_said_on_the_page(clip, photograph):
    long = "青光眼" * 20
    answer = answers.score(clip, photograph, answers.typed_prompts(f"正常\n{long}"))
    assert "typed: 1 of 2 prompts are cut after " in html.scores(answer)
    assert "<b>1 of 1 texts are cut" in html.gallery([], ".", "none", clip.readings([long]))
    assert " are cut after " not in html.scores(
        answers.score(clip, photograph, answers.typed_prompts("正常\n青光眼"))
    )


@pytest.mark.slow  # a heat map is compiled
def test_the_heat_map_is_the_explainers(clip, photograph):
    prompt_set = answers.typed_prompts("正常\n青光眼 | 病变\n视网膜")
    expected = Explainer(clip, prompt_set)(photograph.square[None], [2])[0]
    found = answers.heat(clip, photograph, prompt_set, 2)
    np.testing.assert_array_equal(found, overlay(photograph.picture, expected))


def test_neighbours_come_best_first():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    hits = index.nearest(index.Index(("a", "b", "c"), vectors, ""), np.array([0.0, 1.0]), 2)
    assert [hit.item for hit in hits] == ["b", "c"]
    assert hits[1].cosine == pytest.approx(0.8)


# --- A folder, and the training captions.


def test_a_folder_is_embedded_once_and_what_is_new_in_it_later(clip, folder, monkeypatch):
    found = index.index_folder(clip, folder)
    paths = [folder / "a.jpg", folder / "copy.jpg", folder / "sub" / "b.png"]
    assert sorted(found.items) == sorted(map(str, paths))
    assert "3 photographs" in found.about
    assert "1 could not be read" in found.about
    np.testing.assert_allclose(found.vectors, clip.encode_image(found.items), atol=1e-5)

    asked = []
    preprocess = clip.preprocess
    monkeypatch.setattr(clip, "preprocess", lambda p, *a: (asked.append(p.name), preprocess(p))[1])
    (folder / "bad.jpg").unlink()
    again = index.index_folder(clip, folder)
    np.testing.assert_array_equal(again.vectors, found.vectors)
    assert asked == []
    (folder / "a.jpg").write_bytes(encoded(7))
    changed = index.index_folder(clip, folder)
    assert asked == ["a.jpg"]
    assert not np.allclose(changed.vectors[0], found.vectors[0])
    # A damaged cache is none.
    (cache,) = (folder / index.FOLDER).iterdir()
    cache.write_bytes(b"PK no archive")
    np.testing.assert_allclose(index.index_folder(clip, folder).vectors, changed.vectors, atol=1e-5)


def test_a_search_finds_what_the_text_fits_best(clip, folder):
    found = index.index_folder(clip, folder)
    hits = answers.search(clip, " 青光眼\n", found, 2)
    cosines = found.vectors @ clip.encode_text(["青光眼"])[0]
    assert [hit.item for hit in hits] == [found.items[i] for i in np.argsort(-cosines)[:2]]
    page = html.gallery(hits, folder, found.about)
    assert page.count("data:image/jpeg") == 2
    assert str(folder) not in page
    os.remove(hits[0].item)
    assert "cannot be read any more" in html.gallery(hits, folder, found.about)
    for text in ("", " \n", "眼" * 301):
        with pytest.raises(ValueError, match=r"what to look for|longer than 300"):
            answers.search(clip, text, found, 2)


def test_a_folder_without_photographs_is_refused(clip, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        index.index_folder(clip, tmp_path / "no")
    with pytest.raises(ValueError, match="there is no image"):
        index.index_folder(clip, tmp_path)
    (tmp_path / "bad.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="none of its 1 photographs can be read"):
        index.index_folder(clip, tmp_path)


def test_a_portable_folder_has_no_training_captions(clip, portable_folder):
    with pytest.raises(ValueError, match="does not name its training data"):
        index.index_training_captions(clip, portable_folder, 10)


def test_training_captions_come_from_the_runs_own_data(clip, tmp_path, write_idrid):
    from vclip_jax import config, datasets
    from vclip_jax.files.writing import write_json

    run = config.default()
    run.data.dataset, run.data.data_dir = "idrid", str(tmp_path / "moved")
    write_json(tmp_path / "config.json", run.to_dict())
    with pytest.raises(ValueError, match=r"'idrid' is not in .*moved"):
        index.index_training_captions(clip, tmp_path, 10)
    with pytest.raises(ValueError, match="--captions 0"):
        index.index_training_captions(clip, tmp_path, 0)

    datasets.prepare("idrid", str(write_idrid(tmp_path / "source")), str(tmp_path / "data"))
    source = datasets.open_source("idrid", tmp_path / "data", "train")
    found = index.index_training_captions(clip, tmp_path, 100, tmp_path / "data")
    assert set(found.items) == {record["caption"] for record in source}
    np.testing.assert_allclose(found.vectors, clip.encode_text(found.items), atol=1e-5)
    few = index.index_training_captions(clip, tmp_path, 2, tmp_path / "data", tmp_path / "cache")
    assert set(few.items) == {source[0]["caption"], source[len(source) - 1]["caption"]}
    assert [path.name[:14] for path in (tmp_path / "cache").iterdir()] == ["demo-captions-"]


# --- The page.


def test_what_people_type_is_shown_as_they_typed_it(clip, photograph):
    hostile = "<img src=x onerror=alert(1)>"
    answer = answers.score(clip, photograph, answers.typed_prompts(f"{hostile}|a\n青光眼"))
    hits = [index.Hit(hostile, 0.5)]
    for page in (
        html.scores(answer),
        html.captions(hits, hostile),
        html.gallery(hits, ".", hostile),
        html.message(hostile),
        html.photograph(photograph.picture, hostile),
    ):
        assert "<img src=x" not in page
        assert "&lt;img src=x" in page


def test_the_page_says_that_it_is_no_diagnosis():
    assert "nothing here is a diagnosis" in html.warning().replace("\n", " ")


def test_mistakes_on_the_command_line_are_one_line(portable_folder, tmp_path):
    pytest.importorskip("gradio", reason="needs the extra [demo]")
    asked = ["--model", portable_folder, "--prompts", "zh/fives"]
    for arguments, message in (
        (["--model", tmp_path / "no"], "there is no"),
        (["--model", portable_folder, "--prompts", "zh/fivs"], "did you mean zh/fives"),
        ([*asked, "--images", tmp_path / "no"], "no such folder"),
        ([*asked, "--port", "70000"], "choose others with --host, --port"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "vclip_jax.demo", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_without_gradio_the_command_says_what_to_install(capsys, monkeypatch, portable_folder):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    assert command.main(["--model", str(portable_folder)]) == 1
    assert capsys.readouterr().err == (
        "error: the demo needs Gradio: pip install 'vclip_jax[demo]'\n"
    )


def test_only_this_machine_reaches_the_page_unless_one_asks():
    assert command._parser().parse_args(["--model", "w"]).host == "127.0.0.1"
    assert command._is_loopback("127.0.0.1")
    assert command._is_loopback("::1")
    assert command._is_loopback("localhost")
    assert not command._is_loopback("0.0.0.0")


# --- Uploads, behind the page's gate.


def test_what_reads_uploads_reads_nothing_else(tmp_path):
    folder = tmp_path / "uploads"
    (folder / "hash").mkdir(parents=True)
    secret, link, good = tmp_path / "secret.jpg", folder / "hash/b.jpg", folder / "hash/a.jpg"
    secret.write_text("the owner's")
    link.symlink_to(secret)
    good.write_bytes(b"123")
    around = folder / "hash/../../secret.jpg"
    for path in (secret, link, folder, around, folder / "c.jpg", "", "\0"):
        with pytest.raises(ValueError, match=r"upload is missing|null"):
            uploads.take(folder, str(path), 2)
    assert secret.exists()
    assert uploads.take(folder, str(good), 2) == b"12"
    assert not good.exists()


def test_what_was_touched_lately_stays_and_the_rest_is_swept(tmp_path):
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash" / "a.jpg").write_bytes(b"1")
    (tmp_path / "tmpx").write_bytes(b"1")
    uploads.sweep(tmp_path, 60)
    assert uploads.count(tmp_path) == 2
    uploads.sweep(tmp_path, -1)
    uploads.sweep(tmp_path, -1)  # a folder that has become empty
    assert list(tmp_path.iterdir()) == []


def test_a_decoder_that_is_brought_down_takes_nothing_along():
    settings = {"image_size": 8, "fit": "squash", "decode": "exact", "enhance": False}
    with pytest.raises(ImageError, match=r"^this file: the decoder crashes"):
        reader.guard(os.abort)
    with pytest.raises(ImageError, match=r"^this file: ZeroDivisionError$"):
        reader.guard(divmod, 1, 0)
    with pytest.raises(ImageError, match=r"^this file: cannot read the image"):
        reader.guard(reader.pixels, b"no picture", 8, settings)
    square, shown, refused = reader.guard(reader.pixels, encoded(), 16, settings)
    assert refused == gate.judge(read_rgb(encoded()))
    assert gate.NOT_FUNDUS in refused
    assert (square.shape, shown.shape) == ((8, 8, 3), (16, 16, 3))
    with pytest.raises(ImageError, match=re.escape("takes more than 0.1 seconds")):
        reader.guard(time.sleep, 600, limits=Limits(seconds=0.1))
    assert reader.guard(divmod, 7, 2) == (3, 1)
