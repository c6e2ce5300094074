"""The systems of the paper's Table 1: models of their own packages, and the files they write.

Weights are random; there are no published ones here.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vclip_jax.interop.__main__ import main as interop

torch = pytest.importorskip("torch", reason="needs the [parity] extra: torch")
torchvision = pytest.importorskip("torchvision", reason="needs the [parity] extra: torchvision")
open_clip = pytest.importorskip("open_clip", reason="needs the [parity] extra: open_clip")
transformers = pytest.importorskip("transformers", reason="needs the [parity] extra: transformers")
timm = pytest.importorskip("timm", reason="needs the [parity] extra: timm")


def stir(model: Any, seed: int = 0) -> Any:
    """No weight of the model trivial, and images that do not fade without batch statistics."""
    generator = torch.Generator().manual_seed(seed)

    def noise(value: Any) -> Any:
        return torch.randn(value.shape, generator=generator)

    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("logit_scale") or not value.is_floating_point():
                continue
            if name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif value.ndim == 1:
                value.add_(0.1 * noise(value))
            elif value.ndim == 4 and ("layer" in name or name.endswith("conv1.weight")):
                value.mul_(1.5)
            if name.endswith("bn3.weight"):
                value.add_(0.3)
    return model.eval()


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
    return left @ right.T


def imported(format: str, source: Path, work: Path, *options: Any) -> Path:
    arguments = ["--format", format, "--source", source, "--out", work, *options]
    assert interop(["import", *map(str, arguments)]) == 0
    return work


# --- CLIP of transformers.


def write_clip_words(folder: Path) -> Path:
    """CLIP's vocabulary in the files of transformers; returns the folder."""
    their = open_clip.tokenizer.SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): index for token, index in their.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = "\n".join(" ".join(pair) for pair in their.bpe_ranks)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    return folder


def clip_of_transformers(tiny: bool, activation: str = "quick_gelu") -> Any:
    """CLIP's ViT-B/32, or a tiny one of 64 pixels."""
    vision = {"hidden_act": activation} | (
        {}
        if not tiny
        else {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 512,
            "image_size": 64,
            "patch_size": 16,
        }
    )
    text = {"hidden_act": activation} | (
        {}
        if not tiny
        else {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
        }
    )
    config = transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=16 if tiny else 512
    )
    torch.manual_seed(0)
    return stir(transformers.CLIPModel(config))


def write_clip_of_transformers(folder: Path, model: Any, words: Path, *, safe: bool = True) -> Any:
    """The files of a CLIPModel, with safetensors or pytorch_model.bin; returns its tokenizer."""
    model.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(words))
    tokenizer.save_pretrained(folder)
    return tokenizer


# --- BERT's English words, of BiomedCLIP and FLAIR.

WORDS = """
the of and a an in with eye eyes fundus photo photograph ##graph glaucoma diabetic
retinopathy severe non proliferative ##ative cup disc ratio to healthy drusen macula ##r ##s ##ed
cat don t ' - . , : ; / ( ) ! & < > 0 8 1 2 3 4 ##5 ##6 ##7 Glaucoma GLAUCOMA naive cafe naïve café
word b c x amp lt gt
"""


def write_bert_words(path: Path) -> Path:
    """A vocabulary with capitals, as Bio_ClinicalBERT's, and every letter; returns the path."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
        *WORDS.split(),
    ]
    path.write_text("".join(f"{token}\n" for token in dict.fromkeys(tokens)))
    return path


# --- FLAIR, built here from what it is made of.


def flair(tiny: bool, words: int) -> Any:
    """Modules named as FLAIR's are."""
    torch.manual_seed(0)
    vision, text = torch.nn.Module(), torch.nn.Module()
    bert = (
        transformers.BertConfig(vocab_size=words)
        if not tiny
        else transformers.BertConfig(
            vocab_size=words,
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=80,
        )
    )
    if tiny:
        vision.model = torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 2, 1, 1], width_per_group=64
        )
    else:
        vision.model = torchvision.models.resnet50(weights=None)
    vision.model.fc = torch.nn.Identity()
    text.model = transformers.BertModel(bert)
    vision.projection_head_vision, text.projection_head_text = torch.nn.Module(), torch.nn.Module()
    vision.projection_head_vision.projection = torch.nn.Linear(2048, 512, bias=False)
    text.projection_head_text.projection = torch.nn.Linear(bert.hidden_size, 512, bias=False)
    model = torch.nn.Module()
    model.vision_model, model.text_model = vision, text
    model.logit_scale = torch.nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
    return stir(model)


def flair_text(model: Any, ids: Any, mask: Any) -> Any:
    """Means of three layers over all positions, a unit vector, projected."""
    states = model.text_model.model(ids, attention_mask=mask, output_hidden_states=True)
    mean = torch.stack([states.hidden_states[i] for i in (1, 2, -1)]).mean(0).mean(1)
    mean = mean / mean.norm(dim=-1, keepdim=True)
    return model.text_model.projection_head_text.projection(mean)


def flair_image(model: Any, pixels: Any) -> Any:
    """The image's features, a unit vector before it is projected."""
    hidden = model.vision_model.model(pixels)
    hidden = hidden / hidden.norm(dim=-1, keepdim=True)
    return model.vision_model.projection_head_vision.projection(hidden)


def flair_pixels(pixels: np.ndarray) -> Any:
    """FLAIR's `preprocess_image`: uint8 `[h, w, 3]` to `[1, 3, 512, 512]`."""
    image = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)[None]
    scale = max(image.shape[-2:]) / 512
    sides = [int(side / scale) for side in image.shape[-2:]]
    small = torchvision.transforms.Resize(sides, antialias=True)(image)
    return torch.nn.functional.pad(small, (0, 512 - sides[1], 0, 512 - sides[0]))


# --- BiomedCLIP.


class BiomedText(torch.nn.Module):
    """open_clip's text tower around a BERT of a config, which it would fetch otherwise."""

    def __init__(self, config: Any, outputs: int):
        super().__init__()
        self.tower = open_clip.hf_model.HFTextEncoder(
            "",
            outputs,
            config=config,
            pooler_type="cls_last_hidden_state_pooler",
            proj_type="mlp",
            pretrained=False,
        )


def biomedclip(tiny: bool, words: int) -> Any:
    torch.manual_seed(0)
    sizes = (
        {}
        if not tiny
        else {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 300,
        }
    )
    bert = transformers.BertConfig(vocab_size=words, **sizes)
    embed_dim = 16 if tiny else 512
    model = torch.nn.Module()
    model.visual = open_clip.timm_model.TimmModel(
        "vit_base_patch16_224" if not tiny else "vit_tiny_patch16_224", embed_dim, pool=""
    )
    if tiny:
        model.visual.trunk = timm.models.VisionTransformer(
            img_size=64, patch_size=16, embed_dim=128, depth=2, num_heads=2, num_classes=0
        )
        model.visual.head.proj = torch.nn.Linear(128, embed_dim, bias=False)
    model.text = BiomedText(bert, embed_dim).tower
    model.logit_scale = torch.nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
    return stir(model)


def write_biomedclip(folder: Path, model: Any, tokenizer: Any, *, tiny: bool) -> None:
    """The files of open_clip."""
    tokenizer.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    described = {
        "model_cfg": {
            "embed_dim": 16 if tiny else 512,
            "vision_cfg": {
                "timm_model_name": "vit_base_patch16_224",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": 64 if tiny else 224,
            },
            "text_cfg": {
                "hf_model_name": "none",
                "hf_tokenizer_name": "none",
                "hf_proj_type": "mlp",
                "hf_pooler_type": "cls_last_hidden_state_pooler",
                "context_length": 256,
            },
        },
        "preprocess_cfg": {
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(described))
