"""Our reading and writing of checkpoints against PyTorch, Chinese-CLIP and BERT."""

import collections
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from vclip_jax.interop import names
from vclip_jax.interop.pytorch import checkpoints
from vclip_jax.interop.systems import cn_clip, hf_bert
from vclip_jax.interop.weights import (
    Weights,
    bert_config,
    complete_config,
    expected_arrays,
    make_clip,
)
from vclip_jax.models.bert import Bert
from vclip_jax.models.clip import normalise_image

torch = pytest.importorskip("torch", reason="needs the [parity] extra: torch")
pytest.importorskip("cn_clip", reason="needs the [parity] extra: cn-clip")

pytestmark = pytest.mark.parity

TINY = {
    "embed_dim": 16,
    "image_resolution": 64,
    "vision_layers": [1, 2, 1, 1],
    "vision_width": 8,
    "vision_patch_size": None,
    "vocab_size": 30,
    "text_attention_probs_dropout_prob": 0.1,
    "text_hidden_act": "gelu",
    "text_hidden_dropout_prob": 0.1,
    "text_hidden_size": 128,
    "text_initializer_range": 0.02,
    "text_intermediate_size": 48,
    "text_max_position_embeddings": 20,
    "text_num_attention_heads": 2,
    "text_num_hidden_layers": 2,
    "text_type_vocab_size": 2,
}


def released(vision: str = "RN50") -> dict:
    """Sizes as Chinese-CLIP publishes them: an image tower of its, and RBT3."""
    import cn_clip as package

    configs = Path(package.__file__).parent / "clip" / "model_configs"
    info = json.loads((configs / f"{vision}.json").read_text())
    if isinstance(info["vision_layers"], str):
        info["vision_layers"] = json.loads(info["vision_layers"])
    return info | json.loads((configs / "RBT3-chinese.json").read_text())


def build(info: dict, state: dict | None = None):
    """Chinese-CLIP's model with a state or, without one, no weight of it trivial."""
    from cn_clip.clip.model import CLIP

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = CLIP(**info).eval()
    if state is not None:
        model.load_state_dict(state, strict=True)
        return model
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.ndim == 4:
                value.mul_(6**0.5)  # else images fade from layer to layer without batch statistics
            elif ".bn" in name or ".downsample.1." in name or name.endswith("bias"):
                value.copy_(value + 0.3 * torch.randn(value.shape))
    return model


def random_weights(info: dict) -> Weights:
    config = complete_config(
        {
            "model": {
                "embed_dim": info["embed_dim"],
                "vision_layers": np.atleast_1d(info["vision_layers"]).tolist(),
                "vision_width": info["vision_width"],
                "vision_patch_size": info["vision_patch_size"] or 16,
                "text_width": info["text_hidden_size"],
                "text_layers": info["text_num_hidden_layers"],
                "text_heads": info["text_num_attention_heads"],
                "text_mlp_width": info["text_intermediate_size"],
                "text_max_positions": info["text_max_position_embeddings"],
            },
            "data": {"image_size": info["image_resolution"]},
            "tokenizer": {"context_length": 20, "vocab_size": info["vocab_size"]},
        },
        origin="test",
    )
    rng = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith((".scale", ".var")):
            return rng.uniform(0.5, 1.5, shape)
        fan_in = np.prod(shape[:-1]) if name.endswith(("kernel", "text_projection")) else 4
        return rng.standard_normal(shape) / np.sqrt(fan_in)

    arrays = {
        name: np.asarray(draw(name, leaf.shape), np.float32)
        for name, leaf in expected_arrays(config).items()
    }
    return Weights(config, arrays)


def our_features(weights: Weights, images: np.ndarray, tokens: np.ndarray):
    graphdef, _, _ = nnx.split(
        nnx.eval_shape(lambda: make_clip(weights.config, nnx.Rngs(0))), nnx.Param, nnx.BatchStat
    )

    @jax.jit
    def run(params, batch_stats, images, tokens):
        model = nnx.merge(graphdef, params, batch_stats)
        image = model.visual(normalise_image(images), train=False)
        return image, model.bert(tokens) @ model.text_projection[...]

    return run(*weights.variables, images, tokens)


def their_features(model, images: np.ndarray, tokens: np.ndarray):
    normalised = np.asarray(normalise_image(images)).transpose(0, 3, 1, 2).copy()
    with torch.no_grad():
        image = model.encode_image(torch.from_numpy(normalised))
        return image.numpy(), model.encode_text(torch.from_numpy(tokens)).numpy()


def inputs(info: dict) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    side = info["image_resolution"]
    tokens = rng.integers(1, info["vocab_size"], (3, 18))
    tokens[1, 9:] = 0
    coarse = np.kron(rng.integers(0, 200, (3, 8, 8, 3)), np.ones((1, side // 8, side // 8, 1), int))
    return (coarse + rng.integers(0, 56, coarse.shape)).astype(np.uint8), tokens


SIZES = pytest.mark.parametrize(
    "size", ["tiny, 64-wide heads", "tiny ViT", "RN50 + RBT3", "ViT-B/16 + RBT3"]
)


def of_size(size: str) -> tuple[dict, float]:
    """The reference's configuration, and the bound of relative errors."""
    vit = {"vision_layers": 2, "vision_width": 128, "vision_patch_size": 8}
    return {
        "tiny, 64-wide heads": (TINY, 1e-5),
        "tiny ViT": (TINY | vit, 1e-5),
        "RN50 + RBT3": (released("RN50"), 1e-4),
        "ViT-B/16 + RBT3": (released("ViT-B-16"), 1e-4),
    }[size]


@SIZES
def test_our_export_is_loaded_strictly(tmp_path, size, table, relative_error):
    info, bound = of_size(size)
    weights = random_weights(info)
    path = tmp_path / "a.pt"
    cn_clip.save(path, weights, step=5)
    content = torch.load(path, weights_only=True)
    assert content["step"] == 5
    state = {name.removeprefix("module."): value for name, value in content["state_dict"].items()}
    data = inputs(info)
    pairs = zip(
        our_features(weights, *data), their_features(build(info, state), *data), strict=True
    )
    for tower, (ours, theirs) in zip(("image", "text"), pairs, strict=True):
        what = f"{tower} features, exported file"
        table.check(what, size, "relative error", relative_error(ours, theirs), bound)


@SIZES
def test_their_checkpoint_is_imported(tmp_path, size, table, relative_error):
    info, bound = of_size(size)
    model = build(info)
    path = tmp_path / "a.pt"
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 1, "step": 2, "name": "x", "state_dict": state, "optimizer": {}}, path)
    data = inputs(info)
    theirs = their_features(model, *data)
    for tower, ours, their in zip(
        ("image", "text"), our_features(cn_clip.load(path), *data), theirs, strict=True
    ):
        assert relative_error(their[:1], their[1:2]) > 1e-3  # what is compared does differ
        what = f"{tower} features, imported file"
        table.check(what, size, "relative error", relative_error(ours, their), bound)


def test_chinese_clips_own_loader_takes_our_export(tmp_path):
    from cn_clip.clip.utils import create_model

    weights = random_weights(released())
    cn_clip.save(tmp_path / "a.pt", weights)
    model = create_model("RN50@RBT3-chinese", torch.load(tmp_path / "a.pt"))
    assert model.visual.conv1.weight.dtype == torch.float16  # so it keeps its models
    np.testing.assert_allclose(
        model.visual.conv1.weight.detach().float().numpy(),
        weights.arrays["visual.conv1.kernel"].transpose(3, 2, 0, 1),
        rtol=1e-3,
        atol=1e-6,
    )


def test_a_checkpoint_as_training_leaves_it_comes_back_bit_by_bit(tmp_path):
    """With a parallel module's names, the optimiser's state and NumPy's learning rate."""
    model = build(TINY)
    wrapped = torch.nn.Module()
    wrapped.module = model
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-3)
    image, text, scale = model(torch.randn(2, 3, 64, 64), torch.ones(2, 4, dtype=torch.long))
    (image * text * scale).sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = np.float64(2.5e-4)
    content = {
        "epoch": 1,
        "step": 2,
        "name": "x",
        "state_dict": wrapped.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    path = tmp_path / "epoch_latest.pt"
    torch.save(content, path)
    read = checkpoints.read(path)
    assert read["optimizer"]["param_groups"][0]["lr"] == 2.5e-4
    back = names.to_reference(cn_clip.load(path).arrays)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(read["state_dict"][f"module.{name}"], value.numpy())
        if not name.endswith("num_batches_tracked"):
            assert back[name].tobytes() == value.numpy().tobytes(), name


def test_what_pytorch_writes_is_read_equal(tmp_path):
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    content = {
        "views": [base, base[1], base[:, ::2, 1:], base.permute(2, 0, 1), base.expand(2, 2, 3, 4)],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "types": {
            str(dtype): torch.arange(5).to(dtype)
            for dtype in (
                torch.float16,
                torch.float64,
                torch.int8,
                torch.int16,
                torch.int32,
                torch.int64,
                torch.uint8,
                torch.bool,
                torch.complex64,
                torch.complex128,
            )
        },
        "size": base.shape,
        "ordered": collections.OrderedDict(a=1),
        "betas": (0.9, 0.999),
    }
    for protocol in (2, 3, 4):
        torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol)
        read = checkpoints.read(tmp_path / "a.pt")
        for ours, theirs in zip(read["views"], content["views"], strict=True):
            np.testing.assert_array_equal(ours, theirs.numpy())
        assert read["scalar"] == 2.5
        assert read["empty"].shape == (0, 3)
        for name, theirs in content["types"].items():
            assert read["types"][name].dtype == theirs.numpy().dtype
            np.testing.assert_array_equal(read["types"][name], theirs.numpy())
        assert read["size"] == (2, 3, 4)
        assert read["ordered"] == {"a": 1}
        assert read["betas"] == (0.9, 0.999)


def test_brain_floats_are_read_and_written(tmp_path):
    theirs = torch.randn(50).bfloat16()
    torch.save(theirs, tmp_path / "a.pt")
    ours = checkpoints.read(tmp_path / "a.pt")
    np.testing.assert_array_equal(ours.astype(np.float32), theirs.float().numpy())
    checkpoints.write(tmp_path / "b.pt", {"a": ours})
    assert torch.equal(torch.load(tmp_path / "b.pt", weights_only=True)["a"], theirs)


@pytest.mark.parametrize("mapped", [False, True])
def test_what_we_write_is_loaded_as_weights_only(tmp_path, mapped):
    rng = np.random.default_rng(0)
    content = {
        "a": rng.standard_normal((3, 4)).astype(np.float32).T,
        "scalar": np.zeros((), np.int64),
        "empty": np.zeros((0, 2), np.float16),
        "flags": np.array([True, False]),
        "nested": [{"x": (1, 2**40, 1.5, None, "眼底", True)}, [], {}, ()],
    }
    checkpoints.write(tmp_path / "a.pt", content)
    read = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mapped)
    for name in ("a", "scalar", "empty", "flags"):
        assert read[name].numpy().dtype == content[name].dtype
        np.testing.assert_array_equal(read[name].numpy(), content[name])
    assert read["nested"] == content["nested"]


def test_the_old_format_and_programs_and_modules_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"before 1\.6"):
        checkpoints.read(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"names 'torch\.nn\.modules\.linear\.Linear'"):
        checkpoints.read(path)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="TorchScript"):
        checkpoints.read(path)


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
def test_a_bert_of_transformers_is_imported(tmp_path, kind, table, relative_error):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=20,
        hidden_dropout_prob=0.1,
    )
    torch.manual_seed(0)
    torch.set_num_threads(1)
    _, tokens = inputs(TINY)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(tmp_path)
    weights = hf_bert.load(tmp_path)
    assert weights.config["model"]["text_heads"] == 4
    abstract = nnx.eval_shape(lambda: Bert(bert_config(weights.config), rngs=nnx.Rngs(0)))
    bert = nnx.merge(nnx.graphdef(abstract), weights.variables[0]["bert"])
    with torch.no_grad():
        text = torch.from_numpy(tokens)
        states = getattr(model, "bert", model)(text, attention_mask=text.ne(0).long())
    theirs = states.last_hidden_state[:, 0].numpy()
    error = relative_error(bert(tokens), theirs)
    table.check(
        "text tower, imported from transformers", "tiny BERT", "relative error", error, 1e-5
    )
