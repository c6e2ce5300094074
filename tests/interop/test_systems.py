"""CLIP, BiomedCLIP and FLAIR under their own names: read, refused, and used from a folder."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import vclip_jax
from vclip_jax.interop import folder, names
from vclip_jax.interop.__main__ import main
from vclip_jax.interop.names import Source
from vclip_jax.interop.pytorch import checkpoints
from vclip_jax.interop.systems import flair, hf_clip, open_clip
from vclip_jax.interop.weights import Weights, complete_config, expected_arrays

from .conftest import assert_same

WORDS = 12
CLIP_TEXT = {
    "text_kind": "clip",
    "text_pool": "end",
    "text_dropout": 0.0,
    "text_width": 64,
    "text_layers": 1,
    "text_heads": 1,
    "text_mlp_width": 128,
    "text_max_positions": 77,
}
BERT = {
    "text_width": 64,
    "text_layers": 2,
    "text_heads": 1,
    "text_mlp_width": 24,
    "text_max_positions": 80,
}
VIT = {"embed_dim": 8, "vision_layers": [1], "vision_width": 64, "vision_patch_size": 16}
SYSTEMS: dict[str, dict[str, Any]] = {
    "hf_clip": {**VIT, **CLIP_TEXT},
    "open_clip ViT": {**VIT, **CLIP_TEXT, "activation": "gelu"},
    "open_clip RN50": {
        "embed_dim": 8,
        "vision_layers": [1, 2, 1, 1],
        "vision_width": 8,
        **CLIP_TEXT,
    },
    "biomedclip": {
        **VIT,
        **BERT,
        "vision_kind": "imagenet",
        "activation": "gelu",
        "text_projection_kind": "mlp",
    },
    "flair": {
        "embed_dim": 8,
        "vision_kind": "imagenet",
        "vision_layers": [1, 2, 1, 1],
        "vision_width": 8,
        "vision_pool": "mean",
        **BERT,
        "text_pool": "layers",
    },
}
SOURCES: dict[str, Callable[[str], Source]] = {
    "hf_clip": hf_clip.source,
    "open_clip ViT": partial(open_clip._source, timm=False, text=""),
    "open_clip RN50": partial(open_clip._source, timm=False, text=""),
    "biomedclip": partial(open_clip._source, timm=True, text=""),
    "flair": flair._source,
}


@pytest.fixture(scope="module")
def system() -> Callable[[str], Weights]:
    def make(name: str) -> Weights:
        data = {"image_size": 64, "fit": "centre_crop"}
        if name == "flair":
            data = {
                "image_size": 512,
                "fit": "flair",
                "image_mean": [0.0] * 3,
                "image_std": [1.0] * 3,
            }
        words = {"context_length": 77, "vocab_size": WORDS}
        config = complete_config(
            {"model": SYSTEMS[name], "data": data, "tokenizer": words}, origin="test"
        )
        rng = np.random.default_rng(0)
        arrays = {
            key: (rng.uniform(0.5, 1, leaf.shape) / 4).astype(np.float32)
            for key, leaf in expected_arrays(config).items()
        }
        return Weights(config, arrays)

    return make


def under_their_names(name: str, weights: Weights) -> dict[str, np.ndarray]:
    """The inverse of `names.from_reference`, written anew."""
    theirs = {}
    for key, array in weights.arrays.items():
        source = SOURCES[name](key)
        if source.transposed or (key.endswith("kernel") and array.ndim == 2):
            array = array.T
        elif key.endswith("kernel"):
            array = array.transpose(3, 2, 0, 1)
        array = array.reshape((1,) * source.ones + array.shape)
        many = len(source.names) > 1
        pieces = np.split(array, len(source.names)) if many else [array]
        for part, piece in zip(source.names, pieces, strict=True):
            theirs[part] = np.array(piece, order="C")
        if key.endswith(".var"):
            counter = source.names[0].replace("running_var", "num_batches_tracked")
            theirs[counter] = np.array(3)
    return theirs


def write(name: str, root: Path, state: dict[str, np.ndarray], **changes: Any) -> Path:
    """The system's files in its package's layout; what to import."""
    root.mkdir(exist_ok=True)
    if name == "hf_clip":
        vision = {
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "intermediate_size": 256,
            "image_size": 64,
            "patch_size": 16,
        }
        text = {
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "intermediate_size": 128,
            "vocab_size": WORDS,
            "eos_token_id": 2,
        }
        for key, value in changes.items():
            (vision if key in vision or key == "hidden_act" else text)[key] = value
        config = {
            "model_type": "clip",
            "projection_dim": 8,
            "vision_config": vision,
            "text_config": text,
        }
        (root / "config.json").write_text(json.dumps(config))
        extra = {"text_model.embeddings.position_ids": np.arange(77)}
        save_file(state | extra, root / "model.safetensors")
        return root
    if name == "flair":
        extra = {"text_model.model.pooler.dense.bias": np.zeros(3, np.float32)}
        checkpoints.write(root / "flair_resnet.pth", state | extra)
        return root / "flair_resnet.pth"
    model: dict[str, Any] = {"vision_cfg": {}, "text_cfg": {"context_length": 77}}
    if name == "biomedclip":
        model["text_cfg"] |= {"hf_pooler_type": "cls_last_hidden_state_pooler"}
        model["vision_cfg"] |= {"timm_pool": "", "timm_proj": "linear"}
    for key, value in changes.items():
        (model["vision_cfg"] if key.startswith(("timm", "head")) else model["text_cfg"])[key] = (
            value
        )
    model["quick_gelu"] = name == "open_clip RN50"
    (root / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    checkpoints.write(root / "open_clip_pytorch_model.bin", {"state_dict": state})
    return root


LOADERS = {"hf_clip": hf_clip.load, "flair": flair.load}


def load(name: str, source: Path) -> Weights:
    return LOADERS.get(name, open_clip.load)(source)


@pytest.mark.parametrize("name", SYSTEMS)
def test_weights_under_their_names_come_back(tmp_path, system, name):
    weights = system(name)
    source = write(name, tmp_path / "s", under_their_names(name, weights))
    assert_same(load(name, source), weights)


@pytest.mark.parametrize("name", SYSTEMS)
def test_everything_that_is_wrong_is_named_at_once(tmp_path, system, name):
    state = under_their_names(name, system(name))
    spare = [key for key in state if key.endswith(".bias") and "bn" not in key and "0" in key]
    missing, reshaped = spare[0], spare[1]
    del state[missing]
    state[reshaped] = np.zeros((3, 5), np.float32)
    state["visual.surprise" if name != "flair" else "surprise"] = np.zeros(2, np.float32)
    source = write(name, tmp_path / "s", state)
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        load(name, source)
    message = str(caught.value)
    assert "\n" not in message
    for part in (f"missing {missing}", "surprise", f"{reshaped} has the shape [3, 5]"):
        assert part in message


def test_half_precision_and_openais_numbers_are_read(tmp_path, system):
    weights = system("open_clip ViT")
    state = {
        key: array.astype(np.float16) if array.dtype == np.float32 else array
        for key, array in under_their_names("open_clip ViT", weights).items()
    }
    state |= {"input_resolution": np.array(64), "context_length": np.array(77)}
    checkpoints.write(tmp_path / "clip.pt", state)
    with pytest.raises(ValueError, match="--activation quick_gelu"):
        open_clip.load(tmp_path / "clip.pt")
    loaded = open_clip.load(tmp_path / "clip.pt", activation="gelu")
    assert loaded.config == weights.config
    for key, array in weights.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[key], array.astype(np.float16))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("hf_clip", {"hidden_act": "relu"}, r"hidden_act is .*quick_gelu|hidden_act is 'relu'"),
        ("hf_clip", {"num_attention_heads": 4}, "num_attention_heads is 4, the tower has 1"),
        ("hf_clip", {"eos_token_id": 5}, "eos_token_id is 5, not 11"),
        ("open_clip ViT", {"no_causal_mask": True}, "no_causal_mask is True, the tower has False"),
        ("open_clip ViT", {"head_width": 80}, "head_width is 80, the tower has 64"),
        ("open_clip ViT", {"novelty": 1}, "text_cfg.novelty is unknown"),
        ("biomedclip", {"timm_pool": "avg"}, "timm_pool is 'avg'"),
        ("biomedclip", {"hf_pooler_type": "cls_pooler"}, "hf_pooler_type is 'cls_pooler'"),
    ],
)
def test_other_architectures_are_refused_by_their_configuration(
    tmp_path, system, name, changes, message
):
    source = write(name, tmp_path / "s", under_their_names(name, system(name)), **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load(name, source)
    assert "\n" not in str(caught.value)


def test_the_preparation_of_transformers_is_read_or_refused(tmp_path, system):
    source = write("hf_clip", tmp_path / "s", under_their_names("hf_clip", system("hf_clip")))
    path = source / "preprocessor_config.json"
    usual = {
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 64, "width": 64},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [1, 1, 1],
        "resample": 3,
    }
    path.write_text(json.dumps(usual))
    assert hf_clip.load(source).config["data"]["image_mean"] == [0.1, 0.2, 0.3]
    for change in ({"resample": 2}, {"do_center_crop": False}, {"size": 72}):
        path.write_text(json.dumps(usual | change))
        with pytest.raises(ValueError, match="another preprocessing"):
            hf_clip.load(source)


def test_files_of_other_models_are_refused(tmp_path):
    checkpoints.write(tmp_path / "a.pth", {"x": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="it is not FLAIR's"):
        flair.load(tmp_path / "a.pth")
    with pytest.raises(ValueError, match="not a model of open_clip"):
        open_clip.load(tmp_path / "a.pth")
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match="of a 'siglip', not of a 'clip'"):
        hf_clip.load(tmp_path)
    with pytest.raises(ValueError, match="has neither"):
        open_clip.load(tmp_path)


@pytest.mark.parametrize("name", ["flair", "open_clip RN50"])
def test_an_imported_system_embeds_and_classifies(tmp_path, system, name, capsys):
    weights = system(name)
    source = write(name, tmp_path / "s", under_their_names(name, weights))
    beside = source if source.is_dir() else source.parent
    if name == "flair":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]
        (beside / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    else:
        tokens = [
            *"abcde",
            *(f"{letter}</w>" for letter in "abcde"),
            "<|startoftext|>",
            "<|endoftext|>",
        ]
        (beside / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
        (beside / "merges.txt").write_text("#version: 0.2\n")
    format = name.split()[0]
    work = tmp_path / "w"
    command = ["import", "--format", format, "--source", str(source), "--out", str(work)]
    assert main(command) == 0, capsys.readouterr().err
    assert {path.name for path in work.iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "README.md",
    }
    assert "language: en" in (work / "README.md").read_text()
    assert_same(folder.load(work)[0], weights)
    clip = vclip_jax.load(work)
    photographs = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    probabilities = clip.classify(photographs, ["a b", "c"])
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert main(command) == 1
    assert "tokenizer.json" in capsys.readouterr().err


def test_padding_that_bert_would_read_is_refused(tmp_path, system):
    from vclip_jax.data.text import tokenizer_json

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    tokenizer = tokenizer_json.import_tokenizer(tmp_path).with_padding("[MASK]")
    with pytest.raises(ValueError, match="pads with the token 4, but BERT with 0"):
        folder.save(tmp_path / "w", system("flair"), tokenizer, origin="test")


def test_the_folder_of_one_tokenizer_can_become_that_of_another(
    tmp_path, system, tiny_weights, tokenizer
):
    from vclip_jax.data.text import tokenizer_json

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    english = tokenizer_json.import_tokenizer(tmp_path)
    work = tmp_path / "w"
    for weights, words_of in ((tiny_weights(), tokenizer), (system("flair"), english)) * 2:
        folder.save(work, weights, words_of, origin="test", overwrite=True)
        loaded, found = folder.load(work)
        assert found == words_of
        assert_same(loaded, weights)


def test_names_of_the_reference_are_what_they_were():
    assert names.reference_source("bert.layer.0.attention.self_.query.kernel") == Source(
        ("bert.encoder.layer.0.attention.self.query.weight",)
    )
