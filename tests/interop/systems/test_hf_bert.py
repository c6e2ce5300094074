"""BERTs in the layout of Hugging Face."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from vclip_jax.interop import names
from vclip_jax.interop.pytorch import checkpoints
from vclip_jax.interop.systems import hf_bert

from ..conftest import assert_same

CONFIG = {
    "model_type": "bert",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "vocab_size": 15,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "pad_token_id": 0,
    "initializer_range": 0.02,
}


@pytest.fixture(scope="module")
def weights(tiny_weights):
    return tiny_weights("text")


def write(folder, state, *, file="model.safetensors", **changes):
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    state = {name: np.ascontiguousarray(array) for name, array in state.items()}
    (save_file if file == "model.safetensors" else lambda s, p: checkpoints.write(p, s))(
        state, folder / file
    )
    return folder


def pretrained(weights):
    """A state with all that a checkpoint of pre-training has beside the encoder."""
    state = names.to_reference(weights.arrays)
    return state | {
        "cls.predictions.bias": np.zeros(15, np.float32),
        "bert.pooler.dense.weight": np.zeros((64, 64), np.float32),
        "bert.embeddings.position_ids": np.arange(12)[None],
    }


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_both_files_are_read(tmp_path, weights, file):
    assert_same(hf_bert.load(write(tmp_path, pretrained(weights), file=file)), weights)


def test_gamma_and_beta_and_names_without_prefix_are_read(tmp_path, weights):
    def old(name):
        name = name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma")
        return name.replace("LayerNorm.bias", "LayerNorm.beta")

    state = {old(name): array for name, array in names.to_reference(weights.arrays).items()}
    assert "embeddings.LayerNorm.gamma" in state
    assert_same(hf_bert.load(write(tmp_path, state)), weights)


def test_brain_floats_become_single_precision(tmp_path, weights):
    state = names.to_reference(weights.arrays)
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in state.items()}
    read = hf_bert.load(write(tmp_path, half))
    for name, array in weights.arrays.items():
        assert read.arrays[name].dtype == np.float32
        np.testing.assert_allclose(read.arrays[name], array, rtol=2**-8)


def test_only_the_text_tower_is_made(tmp_path, weights):
    params, batch_stats = hf_bert.load(write(tmp_path, pretrained(weights))).variables
    assert list(params) == ["bert"]
    assert set(params["bert"]) == {"embeddings", "layer"}
    assert batch_stats == {}


def test_everything_that_is_wrong_is_in_one_error(tmp_path, weights):
    state = names.to_reference(weights.arrays)
    del state["bert.encoder.layer.1.output.LayerNorm.bias"]
    state["bert.encoder.layer.2.output.LayerNorm.bias"] = np.zeros(64, np.float32)
    state["bert.embeddings.token_type_embeddings.weight"] = np.zeros((3, 64), np.float32)
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit") as caught:
        hf_bert.load(write(tmp_path, state))
    assert set(str(caught.value).split("nothing was loaded: ")[1].split("; ")) == {
        "missing bert.encoder.layer.1.output.LayerNorm.bias",
        "unexpected bert.encoder.layer.2.output.LayerNorm.bias",
        "bert.embeddings.token_type_embeddings.weight has the shape [3, 64], not [2, 64]",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta', the text tower has 'bert'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"num_attention_heads": 5}, "does not divide by"),
        ({"hidden_size": "64"}, "text_width is '64', expected something like 768"),
        ({"num_hidden_layers": 10**9}, "text_layers is 1000000000"),
        ({"num_hidden_layers": 200}, "too few for the 200 layers"),
    ],
)
def test_other_architectures_are_refused(tmp_path, weights, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        hf_bert.load(write(tmp_path, pretrained(weights), **changes))
    assert str(tmp_path) in str(caught.value)


def test_missing_and_damaged_files_are_refused(tmp_path, weights):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        hf_bert.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ValueError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        hf_bert.load(tmp_path)
    write(tmp_path, pretrained(weights))
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated or damaged"):
        hf_bert.load(tmp_path)
    for text, message in (("{", "Expecting"), ("{}", "lacks 'hidden_size'"), ("[]", "indices")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            hf_bert.load(tmp_path)
