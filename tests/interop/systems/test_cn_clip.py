"""Chinese-CLIP's checkpoints: there and back bit by bit, and all that is wrong in one error."""

import numpy as np
import pytest

from vclip_jax.interop import names
from vclip_jax.interop.pytorch import checkpoints
from vclip_jax.interop.systems import cn_clip
from vclip_jax.interop.weights import full_config

from ..conftest import assert_same


@pytest.fixture(scope="module")
def weights(tiny_weights):
    return tiny_weights()


@pytest.fixture
def state(weights):
    return names.to_reference(weights.arrays)


def write(path, state, prefix="module.", **others):
    state = {prefix + name: array for name, array in state.items()}
    checkpoints.write(path, {"epoch": 1, "step": 2, "name": "x", "state_dict": state, **others})
    return path


def test_export_and_import_give_back_every_bit(tmp_path, weights):
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    cn_clip.save(first, weights, step=7)
    read = cn_clip.load(first)
    assert_same(read, weights)
    cn_clip.save(second, read, step=7)
    assert first.read_bytes() == second.read_bytes()


def test_a_vision_transformer_goes_there_and_back(tmp_path, tiny_weights):
    weights = tiny_weights(vision_layers=[2], vision_width=128, vision_patch_size=8)
    cn_clip.save(tmp_path / "a.pt", weights)
    read = cn_clip.load(tmp_path / "a.pt")
    assert_same(read, weights)
    assert read.config["data"]["image_size"] == 64
    theirs = checkpoints.read(tmp_path / "a.pt")["state_dict"]
    assert theirs["module.visual.conv1.weight"].shape == (128, 3, 8, 8)
    name = "visual.transformer.resblocks.1.attn.in_proj"
    np.testing.assert_array_equal(
        theirs[f"module.{name}_weight"], weights.arrays[f"{name}.kernel"].T
    )


def test_the_imported_arrays_are_their_own_and_contiguous(tmp_path, weights):
    cn_clip.save(tmp_path / "a.pt", weights)
    for array in cn_clip.load(tmp_path / "a.pt").arrays.values():
        assert array.flags.owndata
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_sizes_follow_from_the_shapes(tmp_path, state):
    config = cn_clip.load(write(tmp_path / "a.pt", state)).config
    assert config["kind"] == "clip"
    assert config["data"] == {
        "image_size": 64,
        "fit": "squash",
        "decode": "exact",
        "enhance": False,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    assert config["tokenizer"] == {"context_length": 12, "vocab_size": 15}
    assert config["model"]["vision_layers"] == [1, 2, 1, 1]
    for key, value in {
        "embed_dim": 10,
        "vision_width": 8,
        "vision_pool": "attention",
        "text_width": 64,
        "text_layers": 2,
        "text_heads": 1,
        "text_mlp_width": 24,
        "text_max_positions": 12,
        "text_pool": "first",
        "text_dropout": 0.1,
        "text_kind": "bert",
        "text_projection_kind": "linear",
        "vision_kind": "clip",
        "activation": "quick_gelu",
    }.items():
        assert config["model"][key] == value, key
    full = full_config(config)
    assert full.model.vision_layers == (1, 2, 1, 1)
    assert full.data.image_size == 64


def test_the_exported_file_is_the_references(tmp_path, weights):
    cn_clip.save(tmp_path / "a.pt", weights, step=7)
    content = checkpoints.read(tmp_path / "a.pt")
    assert list(content) == ["epoch", "step", "name", "state_dict", "optimizer"]
    assert content["step"] == 7
    state = content["state_dict"]
    ours = weights.arrays
    for theirs, array in {
        "visual.conv1.weight": ours["visual.conv1.kernel"].transpose(3, 2, 0, 1),
        "visual.bn1.running_var": ours["visual.bn1.var"],
        "visual.layer2.0.downsample.0.weight": ours[
            "visual.layer2.0.downsample.conv.kernel"
        ].transpose(3, 2, 0, 1),
        "visual.layer2.0.downsample.1.running_mean": ours["visual.layer2.0.downsample.norm.mean"],
        "visual.attnpool.c_proj.weight": ours["visual.attnpool.c_proj.kernel"].T,
        "visual.attnpool.positional_embedding": ours["visual.attnpool.positional_embedding"],
        "bert.embeddings.word_embeddings.weight": ours["bert.embeddings.word_embeddings.embedding"],
        "bert.embeddings.LayerNorm.weight": ours["bert.embeddings.LayerNorm.scale"],
        "bert.encoder.layer.1.attention.self.query.weight": ours[
            "bert.layer.1.attention.self_.query.kernel"
        ].T,
        "bert.encoder.layer.1.intermediate.dense.bias": ours["bert.layer.1.intermediate.bias"],
        "bert.encoder.layer.1.output.dense.weight": ours["bert.layer.1.output.dense.kernel"].T,
        "text_projection": ours["text_projection"],
        "logit_scale": ours["logit_scale"],
    }.items():
        np.testing.assert_array_equal(state["module." + theirs], array, theirs)
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(counters) == sum(name.endswith("running_var") for name in state) == 22
    assert all(state[name] == 0 and state[name].dtype == np.int64 for name in counters)
    assert len(state) == len(ours) + len(counters)


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_half_precision_pooler_and_optimizer_are_no_hindrance(tmp_path, state, weights, prefix):
    half = {
        name: array.astype(np.float16) if array.dtype == np.float32 else array
        for name, array in state.items()
    }
    half["bert.pooler.dense.weight"] = np.zeros((64, 64), np.float16)
    optimizer = {"state": {0: {"exp_avg": np.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    read = cn_clip.load(write(tmp_path / "a.pt", half, prefix, optimizer=optimizer))
    for name, array in weights.arrays.items():
        assert read.arrays[name].dtype == np.float32
        np.testing.assert_array_equal(read.arrays[name], array.astype(np.float16))


def test_everything_that_is_wrong_is_in_one_error(tmp_path, state):
    del state["visual.layer1.0.bn2.running_var"]
    del state["text_projection"]
    del state["bert.embeddings.position_embeddings.weight"]
    state["visual.attnpool.extra"] = np.zeros(2, np.float32)
    state["visual.conv1.weight"] = np.zeros((4, 3, 7, 7), np.float32)
    state["bert.encoder.layer.0.output.dense.bias"] = np.zeros(5, np.float32)
    state["visual.bn1.weight"] = state["visual.bn1.weight"].astype(np.int64)
    state["logit_scale"] = 4.6
    path = write(tmp_path / "a.pt", state)
    with pytest.raises(ValueError, match="does not fit, nothing was loaded") as caught:
        cn_clip.load(path)
    said = str(caught.value)
    assert said.startswith(f"{path} does not fit, nothing was loaded: ")
    assert set(said.split("nothing was loaded: ")[1].split("; ")) == {
        "missing bert.embeddings.position_embeddings.weight",
        "missing text_projection",
        "missing visual.layer1.0.bn2.running_var",
        "unexpected visual.attnpool.extra",
        "visual.conv1.weight has the shape [4, 3, 7, 7], not [4, 3, 3, 3]",
        "bert.encoder.layer.0.output.dense.bias has the shape [5], not [64]",
        "visual.bn1.weight is int64, not of a floating type",
        "logit_scale is a float, not a tensor",
    }


def test_a_missing_layer_is_named_weight_by_weight(tmp_path, state):
    left = {n: a for n, a in state.items() if not n.startswith("bert.encoder.layer.0.")}
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        cn_clip.load(write(tmp_path / "a.pt", left))
    missing = str(caught.value).split("nothing was loaded: ")[1].split("; ")
    assert missing[7].endswith(" and 8 more")
    assert all(problem.startswith("missing bert.encoder.layer.0.") for problem in missing)


def test_a_layer_of_a_high_number_does_not_make_all_below_it(tmp_path, state):
    state["bert.encoder.layer.199.x"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=r"arrays, too few for the 20\d layers"):
        cn_clip.load(write(tmp_path / "a.pt", state))


def test_other_files_are_refused(tmp_path, state):
    huge = state | {"visual.class_embedding": np.zeros(1280, np.float32)}
    with pytest.raises(ValueError, match="ViT-H as its image tower"):
        cn_clip.load(write(tmp_path / "a.pt", huge))
    text = {name: array for name, array in state.items() if name.startswith("bert.")}
    with pytest.raises(ValueError, match="no image tower"):
        cn_clip.load(write(tmp_path / "a.pt", text))
    for content in ([1], {"state_dict": 3}, {"state_dict": {1: 2}}):
        checkpoints.write(tmp_path / "a.pt", content)
        with pytest.raises(ValueError, match="holds no state_dict"):
            cn_clip.load(tmp_path / "a.pt")


def test_a_width_that_says_nothing_of_heads_is_refused(tmp_path, tiny_weights):
    state = names.to_reference(tiny_weights(text_width=48).arrays)
    with pytest.raises(ValueError, match="width 48: its number of heads is unknown"):
        cn_clip.load(write(tmp_path / "a.pt", state))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "text"}, "only a text tower"),
        ({"vision_pool": "mean"}, "vision_pool is 'mean'"),
        ({"text_pool": "mean"}, "text_pool is 'mean'"),
        ({"text_heads": 4}, "heads are 64 wide, this model's 64 / 4"),
    ],
)
def test_models_that_the_reference_lacks_are_not_exported(tmp_path, tiny_weights, changes, message):
    with pytest.raises(ValueError, match=message):
        cn_clip.save(tmp_path / "a.pt", tiny_weights(**changes))
    assert not list(tmp_path.iterdir())


def test_the_names_of_the_papers_model_are_distinct():
    from vclip_jax.interop.weights import complete_config, expected_arrays

    ours = expected_arrays(complete_config({}, origin="test"))
    theirs = {names.reference_name(name) for name in ours}
    assert len(theirs) == len(ours) == 373 + 2 * 55


def test_flat_and_nested_are_inverse(weights):
    params, batch_stats = weights.variables
    assert names.flatten(params, batch_stats).keys() == weights.arrays.keys()
    assert list(params["visual"]["layer2"]) == [0, 1]
    assert set(batch_stats["visual"]["bn1"]) == {"mean", "var"}
    assert "bert" not in batch_stats
