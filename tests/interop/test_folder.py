"""The portable folder, and the way from a training run into it."""

import itertools
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from vclip_jax import config as config_lib
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.interop import folder, names, workdir
from vclip_jax.interop.systems import state_dicts
from vclip_jax.prompts import from_phrases
from vclip_jax.train import build, optim, state
from vclip_jax.train.checkpoint import Checkpoints

from .conftest import assert_same


@pytest.mark.parametrize("kind", ["clip", "text"])
def test_what_is_saved_is_loaded(tmp_path, tiny_weights, tokenizer, kind):
    weights = tiny_weights(kind)
    folder.save(tmp_path / "a", weights, tokenizer, origin="a test")
    read, vocabulary = folder.load(tmp_path / "a")
    assert_same(read, weights)
    assert vocabulary == tokenizer
    assert_same(folder.load_file_alone(tmp_path / "a" / "model.safetensors"), weights)
    assert {path.name for path in (tmp_path / "a").iterdir()} == set(folder.FILES)
    assert len({path.stat().st_mode for path in (tmp_path / "a").iterdir()}) == 1
    card = (tmp_path / "a" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "a test" in card
    assert f"{weights.count:,} parameters" in card


def test_a_vision_transformer_is_saved_and_loaded(tmp_path, tiny_weights, tokenizer):
    weights = tiny_weights(vision_layers=[2], vision_width=64)
    folder.save(tmp_path, weights, tokenizer, origin="a test")
    assert_same(folder.load(tmp_path)[0], weights)
    assert "Vision Transformer" in (tmp_path / "README.md").read_text()


def test_arrays_in_any_order_of_memory_are_saved(tmp_path, tiny_weights, tokenizer):
    weights = tiny_weights()
    for name, array in weights.arrays.items():
        weights.arrays[name] = np.asfortranarray(array) if array.ndim else array
    folder.save(tmp_path, weights, tokenizer, origin="a test")
    read, _ = folder.load(tmp_path)
    for name, array in weights.arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)


def test_nothing_is_overwritten_unless_told_so(tmp_path, tiny_weights, tokenizer):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"already has README\.md: pass --overwrite"):
        folder.save(tmp_path, tiny_weights(), tokenizer, origin="a test")
    assert (tmp_path / "README.md").read_text() == "mine"
    folder.save(tmp_path, tiny_weights(), tokenizer, origin="a test", overwrite=True)
    assert (tmp_path / "README.md").read_text() != "mine"
    assert (tmp_path / "other.txt").read_text() == "mine"
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="workdir of a training run"):
        folder.save(tmp_path, tiny_weights(), tokenizer, origin="a test", overwrite=True)


def test_links_are_replaced_not_followed(tmp_path, tiny_weights, tokenizer):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    inside.mkdir()
    outside.write_text("mine")
    for name in folder.FILES:
        (inside / name).symlink_to(outside)
    folder.save(inside, tiny_weights(), tokenizer, origin="a test", overwrite=True)
    assert outside.read_text() == "mine"
    assert not (inside / "model.safetensors").is_symlink()


def test_another_vocabulary_is_refused(tmp_path, tiny_weights, tokenizer):
    other = WordPiece([*tokenizer.vocabulary, "多"])
    with pytest.raises(ValueError, match="the vocabulary has 16 tokens, the model 15"):
        folder.save(tmp_path, tiny_weights(), other, origin="a test")
    folder.save(tmp_path, tiny_weights(), tokenizer, origin="a test")
    other.save(tmp_path / "vocab.txt")
    with pytest.raises(ValueError, match="the vocabulary has 16 tokens, the model 15"):
        folder.load(tmp_path)


def test_files_that_do_not_belong_together_are_refused(tmp_path, tiny_weights, tokenizer):
    folder.save(tmp_path, tiny_weights(), tokenizer, origin="a test")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["data"]["fit"] = "pad"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="differs from the configuration in"):
        folder.load(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        folder.load(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"it lacks config\.json"):
        folder.load(tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model", "vision_layers", "3", "vision_layers is '3'"),
        ("model", "vision_layers", [1, 10**9, 1, 1], "vision_layers is"),
        ("model", "vision_layers", [1, 1], "must be four stages"),
        ("model", "text_pool", "max", "text_pool"),
        ("model", "depth", 3, "has unknown keys"),
        ("data", "image_size", 100, "must be a multiple of 32"),
        ("data", "image_size", True, "image_size is True"),
        ("tokenizer", "vocab_size", -1, "vocab_size is -1"),
        ("tokenizer", "vocab_size", 10**9, "vocab_size is"),
        ("tokenizer", "context_length", 10**6, "context_length is"),
        ("model", "text_layers", 10**9, "text_layers is"),
        ("model", "text_layers", 200, r"arrays, too few for the 20\d layers of its configuration"),
        ("model", "vision_layers", [50, 50, 50, 50], "arrays, too few for the 20"),
        ("model", "vision_layers", [150, 150, 1, 1], "vision_layers is"),
        ("model", "vision_layers", [1] * 10**5, "vision_layers is"),
        ("model", "embed_dim", 10**7, "embed_dim is"),
        ("model", "text_width", -64, "text_width is"),
        ("model", "text_dropout", float("nan"), "NaN is not a number"),
        ("model", "text_initializer_range", 10**400, "text_initializer_range is"),
        ("data", "image_size", 2**20, "image_size is"),
        ("data", "image_mean", [float("nan"), 0, 0], "NaN is not a number"),
        ("data", "image_mean", [float("inf"), 0, 0], "Infinity is not a number"),
        ("data", "image_mean", [10**400, 0, 0], "image_mean is"),
        ("data", "image_std", [1e-300, 1, 1], "image_std is"),
    ],
)
def test_nonsense_in_the_metadata_is_refused(tmp_path, tiny_weights, section, key, value, message):
    weights = tiny_weights()
    config = json.loads(json.dumps(weights.config))
    config[section][key] = value
    path = tmp_path / "model.safetensors"
    save_file(weights.arrays, path, {"vclip_jax": json.dumps(config)})
    with pytest.raises(ValueError, match=message) as caught:
        folder.load_file_alone(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path, tiny_weights, tokenizer, wrong):
    folder.save(tmp_path, tiny_weights(), tokenizer, origin="a test")
    weights = tiny_weights()
    arrays = dict(weights.arrays)
    arrays["text_projection"] = arrays["text_projection"].copy()
    arrays["text_projection"][1, 1] = wrong
    save_file(arrays, tmp_path / "model.safetensors", {"vclip_jax": json.dumps(weights.config)})
    with pytest.raises(ValueError, match="text_projection has values that are NaN"):
        folder.load(tmp_path)


def test_deep_json_in_a_folder_is_refused(tmp_path, tiny_weights, tokenizer):
    folder.save(tmp_path, tiny_weights(), tokenizer, origin="a test")
    deep = '{"model": ' + "[" * 100_000
    (tmp_path / "config.json").write_text(deep)
    with pytest.raises(ValueError, match=r"config\.json is nested more than 64 levels deep"):
        folder.load(tmp_path)
    save_file(tiny_weights().arrays, tmp_path / "model.safetensors", {"vclip_jax": deep})
    with pytest.raises(ValueError, match="its metadata is nested"):
        folder.load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_pipe_is_not_waited_for(tmp_path, tiny_weights, tokenizer, name):
    folder.save(tmp_path, tiny_weights(), tokenizer, origin="a test")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises((ValueError, OSError)):
        folder.load(tmp_path)
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        state_dicts.read_safetensors(tmp_path / name)


def test_files_of_others_are_refused(tmp_path, tiny_weights):
    path = tmp_path / "model.safetensors"
    for metadata, message in (
        (None, "no configuration of vclip_jax"),
        ({"vclip_jax": "{"}, "its metadata is not JSON"),
        ({"vclip_jax": "3"}, "the configuration is a int"),
        ({"vclip_jax": '{"kind": "audio"}'}, "kind is 'audio'"),
        ({"vclip_jax": '{"audio": {}}'}, "unknown sections"),
    ):
        save_file(tiny_weights().arrays, path, metadata)
        with pytest.raises(ValueError, match=message):
            folder.load_file_alone(path)
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match="truncated or damaged"):
        folder.load_file_alone(path)


def test_all_wrong_arrays_are_named(tmp_path, tiny_weights):
    weights = tiny_weights()
    arrays = dict(weights.arrays)
    arrays["visual.bn9.mean"] = arrays.pop("visual.bn1.mean")
    arrays["text_projection"] = arrays["text_projection"].T.copy()
    path = tmp_path / "model.safetensors"
    save_file(arrays, path, {"vclip_jax": json.dumps(weights.config)})
    with pytest.raises(
        ValueError,
        match=r"missing visual\.bn1\.mean; unexpected visual\.bn9\.mean; "
        r"text_projection has the shape \[10, 64\], not \[64, 10\]",
    ):
        folder.load_file_alone(path)


# --- A training run.


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer):
    """A workdir with a checkpoint of step 3, and the state in it."""
    path = tmp_path_factory.mktemp("run")
    config = config_lib.default()
    config.data.image_size, config.data.fit = 64, "fundus"
    config.model.embed_dim = 10
    config.model.vision_layers, config.model.vision_width = (1, 1, 1, 1), 8
    config.model.text_width, config.model.text_layers, config.model.text_heads = 64, 1, 1
    config.model.text_mlp_width, config.model.text_max_positions = 24, 12
    config.tokenizer.context_length = 12
    config.optimizer.clip_grad_norm = 1.0
    config.optimizer.learning_rate_factors = (("bert", 0.5),)
    config.mesh.rules = ((".*", "replicate"),)
    config.evals.idrid = config_lib.zero_shot_eval("idrid", "zh/idrid")
    config_lib.save_or_check(config, path)
    tokenizer.save(path / "vocab.txt")
    optimizer = optim.make_optimizer(config.optimizer, config.total_steps)
    make_model = build.model_maker(config, tokenizer.vocab_size)
    abstract = jax.eval_shape(lambda: state.init_state(make_model, optimizer, 0))
    rng = np.random.default_rng(0)
    train_state = jax.tree.map(
        lambda leaf: jax.numpy.asarray(rng.uniform(0.1, 1, leaf.shape), leaf.dtype), abstract
    )
    checkpoints = Checkpoints(path)
    checkpoints.save(train_state, 3)
    checkpoints.close()
    return path, train_state


def test_a_runs_newest_checkpoint_is_its_model(run, tokenizer):
    path, train_state = run
    weights, vocabulary, step = workdir.load(path)
    assert (step, vocabulary) == (3, tokenizer)
    assert weights.config["data"] == {
        "image_size": 64,
        "fit": "fundus",
        "decode": "exact",
        "enhance": False,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    params, batch_stats = weights.variables
    expected = (train_state.params, train_state.batch_stats)
    assert jax.tree.structure((params, batch_stats)) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, (params, batch_stats), expected)


def test_incomplete_runs_are_refused(tmp_path, run):
    path, _ = run
    with pytest.raises(ValueError, match=r"lacks config\.json, vocab\.txt, checkpoints"):
        workdir.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "vocab.txt").write_bytes((path / "vocab.txt").read_bytes())
    (tmp_path / "config.json").write_bytes((path / "config.json").read_bytes())
    with pytest.raises(ValueError, match="no complete checkpoint yet"):
        workdir.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        workdir.load(tmp_path)


def test_of_many_weights_that_do_not_fit_a_few_are_named():
    found = {f"extra.{number}": np.zeros(1, "f4") for number in range(100_000)}
    found["x" * 10_000] = np.zeros(1, "f4")
    for check in (names.check, names.check_shapes):
        with pytest.raises(ValueError, match=r"unexpected extra\.5; .* and 99,994 more") as caught:
            check(found, {"kernel": (1,)}, origin="a file")
        assert len(str(caught.value)) < 500


def raw_safetensors(path, config, dtype, shape, size):
    """One array of so many bytes, none of which is on the disk."""
    array = {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {"vclip_jax": json.dumps(config)}, "x": array}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


def test_arrays_that_do_not_belong_there_are_not_read(tmp_path, tiny_weights):
    path = tmp_path / "model.safetensors"
    raw_safetensors(path, tiny_weights().config, "F32", [2**38], 2**40)
    with pytest.raises(ValueError, match="holds 1 arrays, too few for the"):
        folder.load_file_alone(path)


def test_a_type_that_numpy_lacks_is_an_error_of_one_line(tmp_path, tiny_weights):
    path = tmp_path / "model.safetensors"
    raw_safetensors(path, tiny_weights().config, "F8_E4M3", [4], 4)
    with pytest.raises(ValueError, match=r"model\.safetensors has arrays of a type") as caught:
        state_dicts.read_safetensors(path)
    assert "\n" not in str(caught.value)


def test_a_link_under_the_name_of_an_unfinished_model_is_not_written_through(
    tmp_path, tiny_weights, tokenizer
):
    other, target = tmp_path / "other", tmp_path / "m"
    other.mkdir()
    (other / "config.json").write_text("mine")
    target.mkdir()
    for name in (".new.part", ".new"):
        (target / name).symlink_to(other)
        folder.complete(target)
        folder.save(target, tiny_weights(), tokenizer, overwrite=True)
    assert (other / "config.json").read_text() == "mine"
    assert [path.name for path in other.iterdir()] == ["config.json"]


# --- A process that is killed.


def content(path):
    return {one.name: one.read_bytes() for one in path.iterdir() if not one.name.startswith(".")}


def killed_at(step: int, act) -> bool:
    """Whether a process that does so was killed before its step on files of this number."""
    process = os.fork()
    if not process:
        left = [step]

        def counted(function):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for name in ("rename", "replace", "unlink", "mkdir", "rmdir", "open", "chmod"):
            setattr(os, name, counted(getattr(os, name)))
        folder.save_file = counted(folder.save_file)
        act()
        os._exit(0)
    return os.waitpid(process, 0)[1] == signal.SIGKILL


@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_save_that_is_killed_leaves_the_old_model_or_the_new_one(
    tmp_path, tiny_weights, tokenizer
):
    two = from_phrases({"healthy": "正常", "ill": "青光眼"}, "two")
    old, new = tmp_path / "old", tmp_path / "new"
    weights = tiny_weights(seed=2)
    folder.save(old, tiny_weights(seed=1), tokenizer, card="old", prompts=two)
    folder.save(new, weights, tokenizer, card="new")
    before, after = content(old), content(new)
    assert before.keys() - after.keys() == {"prompts.json"}
    seen = set()
    for there in (True, False):
        for step in itertools.count():
            target = tmp_path / f"{there}-{step}"
            if there:
                shutil.copytree(old, target)

            def act(target=target):
                folder.save(target, weights, tokenizer, card="new", overwrite=True)

            was_killed = killed_at(step, act)
            assert folder.is_portable(target) or not there
            found = content(target) if target.exists() else {}
            assert found in (after, before if there else {})
            seen.add((there, found == after, was_killed))
            act()  # the next call works
            assert content(target) == after
            assert not list(target.glob(".*"))
            if not was_killed:
                break  # a save has no more steps
    assert seen == {
        *itertools.product((True, False), (True, False), (True,)),
        *((one, True, False) for one in (True, False)),
    }
