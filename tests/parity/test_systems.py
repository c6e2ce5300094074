"""CLIP, BiomedCLIP and FLAIR, imported from the files that their own packages write.

Weights are random; there are no published ones here.
"""

import copy
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import vclip_jax
from vclip_jax.data.images.fit import fit_square
from vclip_jax.data.text import open_clip_cleaning, tokenizer_json
from vclip_jax.datasets.synthetic.domains import sample_case
from vclip_jax.datasets.synthetic.render import render
from vclip_jax.interop import folder
from vclip_jax.interop.__main__ import main as interop
from vclip_jax.interop.weights import Weights, make_clip
from vclip_jax.models.bert import COUNTED_PAD_ID
from vclip_jax.predict import scorer

from .systems import (
    biomedclip,
    clip_of_transformers,
    cosines,
    flair,
    flair_image,
    flair_pixels,
    flair_text,
    imported,
    open_clip,
    stir,
    torch,
    transformers,
    write_bert_words,
    write_biomedclip,
    write_clip_of_transformers,
    write_clip_words,
)

pytestmark = pytest.mark.parity

MERGES = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
PHRASES = [
    "a fundus photograph of a healthy eye",
    "A photo of GLAUCOMA, cup-to-disc ratio 0.8",
    "severe non-proliferative diabetic retinopathy",
    "drusen",
]
NASTY = [
    "",
    " ",
    "\t\n",
    ".",
    "A Cat's EYE, don't they'LL we've I'm",
    "AT&amp;T &lt;b&gt; &ldquo;x&rdquo;",
    "<b>&amp;</b>",
    "&notanentity; &#233;",
    "<end_of_text> <START_OF_TEXT> x",
    "a  b\r\n c",
    "fundus_photograph-of__severe (NPDR) 4:2:1!!!",
    "\x1b[31mred\x1b[0m",
    "\x85a\x80b",
    "1234567 3/4 ½ ²",
    "dr. o'neil's 'S",
    "ＡＢＣ ｶﾞ ＦＵＬＬ　ｗｉｄｔｈ",
    "naïve café Ünïcödé",
    "İstanbul ŉ ǆ ΑΣ ΟΔΟΣ",
    "👁️眼底👩‍⚕️🏥",
    "[CLS][SEP][PAD] [MASK]",
    "<|endoftext|> a",
    "a" * 300,
    "word " * 300,
    "ab\u200bcd\ufeffef",
    "a\u0000b\ufffdc",
    "e\u0301a\u0308",
    "한국어 ภาษาไทย עברית",
    "don't—won't… “quotes” ‘x’",
    "ﬁ ﬂ ß ẞ ς Σ ſt",
    "line\u2028separator\u2029paragraph",
    "\ud83d",
    "\u3000wide\u00a0space",
    "ⅠⅡⅢ①②③ ㎜ ㎏ ℃ Å",
    "糖尿病视网膜病变",
]


@pytest.fixture(autouse=True)
def small_text_batches(monkeypatch):
    """Sixty-four captions at a time would take most of the tests' time."""
    monkeypatch.setattr(scorer, "TEXT_BATCH", len(PHRASES))


# --- What is compared.


def photographs(n: int = 3) -> list[np.ndarray]:
    sizes = [(300, 420), (512, 512), (640, 400)]
    cases = (sample_case("synfundus_like", 5, index) for index in range(n))
    return [render(case, *sizes[i % 3]) for i, case in enumerate(cases)]


class Theirs(NamedTuple):
    """What their code makes of a few photographs and phrases."""

    pixels: np.ndarray
    """Normalised images `[n, 3, s, s]`."""
    tokens: np.ndarray
    image: np.ndarray
    text: np.ndarray
    scale: float


def compare(
    table: Any, relative_error: Any, work: Path, model: str, theirs: Theirs, *, full: bool
) -> None:
    """Hold an imported folder against their features, logits, predictions and probabilities."""
    bound = 1e-4 if full else 1e-5
    weights, tokenizer = folder.load(work)
    image, text = features(weights, theirs.pixels, theirs.tokens)
    for what, got, want in (("image", image, theirs.image), ("text", text, theirs.text)):
        error = relative_error(got, want)
        table.check(f"{what} features of the system", model, "relative error", error, bound)
        # Otherwise nothing would have been compared.
        unit = want / np.linalg.norm(want, axis=1, keepdims=True)
        assert np.abs(unit[1:] - unit[:1]).max() > 1e-4
    ours, logits = (
        cosines(*pair) * np.exp(theirs.scale)
        for pair in ((image, text), (theirs.image, theirs.text))
    )
    table.check(
        "logits of the system", model, "relative error", relative_error(ours, logits), bound
    )
    different = int((ours.argmax(1) != logits.argmax(1)).sum())
    table.check("predicted classes", model, "different", different, 0)

    length = weights.config["tokenizer"]["context_length"]
    np.testing.assert_array_equal(
        tokenizer.encode(PHRASES, length)[:, : theirs.tokens.shape[1]], theirs.tokens
    )
    assert float(weights.arrays["logit_scale"]) == pytest.approx(theirs.scale, rel=1e-6)
    if full:  # The way there depends on no size, and takes as long again.
        return
    clip = vclip_jax.load(work, dtype="float32")
    got = clip.classify([Image.fromarray(pixels) for pixels in photographs()], PHRASES)
    want = np.exp(logits - logits.max(1, keepdims=True))
    want /= want.sum(1, keepdims=True)
    table.check(
        "probabilities from photographs",
        model,
        "largest difference",
        float(np.abs(got - want).max()),
        1e-4,
    )


def features(weights: Weights, pixels: np.ndarray, tokens: np.ndarray) -> Any:
    """Un-normalised features of images that were prepared by others, and of tokens."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: make_clip(weights.config, nnx.Rngs(0))))

    @jax.jit
    def run(variables, pixels, tokens):
        model = nnx.merge(graphdef, *variables)
        return model.visual(pixels, train=False), model.text_features(tokens)

    length = weights.config["tokenizer"]["context_length"]
    end = weights.config["model"]["text_pool"] == "end"
    padded = tokens if end else np.pad(tokens, ((0, 0), (0, length - tokens.shape[1])))
    return [np.asarray(x) for x in run(weights.variables, pixels.transpose(0, 2, 3, 1), padded)]


def differing(ours: tokenizer_json.FastTokenizer, theirs: Any, texts: Sequence[str]) -> list[str]:
    want = np.asarray([theirs(text) for text in texts])
    got = ours.encode(texts, want.shape[1])
    return [text for text, a, b in zip(texts, got, want, strict=True) if a.tolist() != b.tolist()]


# --- CLIP of open_clip and of transformers.


def open_clip_config(name: str, *, tiny: bool) -> dict[str, Any]:
    config = copy.deepcopy(open_clip.get_model_config(name))
    if tiny:
        resnet = isinstance(config["vision_cfg"]["layers"], list)
        config["embed_dim"] = 16
        config["vision_cfg"] |= (
            {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8}
            if resnet
            else {"image_size": 64, "layers": 2, "width": 128, "patch_size": 16}
        )
        config["text_cfg"] |= {"width": 64, "heads": 4, "layers": 2}
    return config


def open_clip_model(config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=open_clip.CLIPVisionCfg(**config["vision_cfg"]),
        text_cfg=open_clip.CLIPTextCfg(**config["text_cfg"]),
        quick_gelu=config.get("quick_gelu", False),
    )
    return stir(model)


def run_open_clip(model: Any, tokenize: Any) -> Theirs:
    size = model.visual.image_size
    transform = open_clip.image_transform(size, is_train=False)
    pixels = torch.stack([transform(Image.fromarray(p)) for p in photographs()])
    tokens = tokenize(PHRASES)
    with torch.no_grad():
        image, text = model.encode_image(pixels).numpy(), model.encode_text(tokens).numpy()
    scale = model.logit_scale.item()
    return Theirs(pixels.numpy(), tokens.numpy().astype(np.int32), image, text, scale)


OPEN_CLIP = [
    ("ViT-B-32", True, ".safetensors"),
    ("ViT-B-32-quickgelu", True, ".bin"),
    ("RN50-quickgelu", True, ".bin"),
    ("RN50", True, ".safetensors"),
    ("RN50-quickgelu", False, ".bin"),
]


@pytest.mark.parametrize(("name", "tiny", "suffix"), OPEN_CLIP)
def test_clip_of_open_clip_is_imported(tmp_path, table, relative_error, name, tiny, suffix):
    config = open_clip_config(name, tiny=tiny)
    model = open_clip_model(config)
    source = tmp_path / "source"
    source.mkdir()
    if suffix == ".bin":
        torch.save(model.state_dict(), source / "open_clip_pytorch_model.bin")
    else:
        from safetensors.torch import save_file

        save_file(model.state_dict(), source / "open_clip_model.safetensors")
    (source / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    work = imported("open_clip", source, tmp_path / "w", "--vocab", MERGES)
    theirs = run_open_clip(model, open_clip.tokenizer.SimpleTokenizer())
    label = f"{'tiny ' if tiny else ''}CLIP {name}, open_clip"
    compare(table, relative_error, work, label, theirs, full=not tiny)


def test_a_state_dict_of_openai_needs_its_activation_told(tmp_path, capsys):
    model = open_clip_model(open_clip_config("ViT-B-32-quickgelu", tiny=True))
    state = {name: value.half() for name, value in model.state_dict().items()}
    numbers = {"input_resolution": 64, "context_length": 77, "vocab_size": 49408}
    source = tmp_path / "clip.pt"
    torch.save(state | {k: torch.tensor(v) for k, v in numbers.items()}, source)
    command = [
        "import",
        "--format",
        "open_clip",
        "--source",
        str(source),
        "--vocab",
        str(MERGES),
        "--out",
        str(tmp_path / "w"),
    ]
    assert interop(command) == 1
    assert "--activation quick_gelu" in capsys.readouterr().err
    assert interop([*command, "--activation", "quick_gelu"]) == 0
    weights, _ = folder.load(tmp_path / "w")
    assert weights.config["model"]["activation"] == "quick_gelu"
    want = state["text_projection"].float().numpy()
    np.testing.assert_array_equal(weights.arrays["text_projection"], want)


@pytest.fixture(scope="module")
def hugging_face_words(tmp_path_factory) -> Path:
    """CLIP's vocabulary in the files of transformers."""
    return write_clip_words(tmp_path_factory.mktemp("words"))


HUGGING_FACE = [
    ("tiny CLIP ViT", "quick_gelu", True),
    ("tiny CLIP ViT, GELU", "gelu", True),
    ("CLIP ViT-B/32", "quick_gelu", False),
]


@pytest.mark.parametrize(("name", "activation", "safe"), HUGGING_FACE)
def test_clip_of_transformers_is_imported(
    tmp_path, table, relative_error, hugging_face_words, name, activation, safe
):
    full = not name.startswith("tiny")
    model = clip_of_transformers(not full, activation)
    source = tmp_path / "source"
    tokenizer = write_clip_of_transformers(source, model, hugging_face_words, safe=safe)
    work = imported("hf_clip", source, tmp_path / "w")

    transform = open_clip.image_transform(model.config.vision_config.image_size, is_train=False)
    pixels = torch.stack([transform(Image.fromarray(p)) for p in photographs()])
    tokens = tokenizer(PHRASES, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        out = model(pixel_values=pixels, **tokens)
        hidden = model.text_model(**tokens).pooler_output
        image = model.visual_projection(model.vision_model(pixels).pooler_output)
        text = model.text_projection(hidden)
    theirs = Theirs(
        pixels.numpy(),
        tokens["input_ids"].numpy().astype(np.int32),
        image.numpy(),
        text.numpy(),
        model.logit_scale.item(),
    )
    # Their own logits are the product of these features.
    expected = np.exp(theirs.scale) * cosines(theirs.image, theirs.text)
    np.testing.assert_allclose(out.logits_per_image.numpy(), expected, rtol=1e-3, atol=1e-4)
    compare(table, relative_error, work, f"{name}, transformers", theirs, full=full)


def test_clip_tokens_are_those_of_open_clip(table):
    ours, theirs = tokenizer_json.clip_from_merges(MERGES), open_clip.tokenizer.SimpleTokenizer()
    different = differing(ours, lambda text: theirs(text)[0].numpy(), NASTY)
    table.check("tokens of nasty strings", "CLIP, open_clip", "different", len(different), 0)


def test_cleaning_is_that_of_open_clip(table):
    theirs = open_clip.tokenizer.get_clean_fn("whitespace")
    rng = np.random.default_rng(0)
    codes = [
        *range(0x20, 0x250),
        *range(0x2000, 0x2070),
        *range(0x3000, 0x3100),
        *range(0xFF00, 0xFFF0),
        0x1F600,
        0x4E00,
        0x301,
    ]
    texts = ["".join(map(chr, rng.choice(codes, rng.integers(1, 12)))) for _ in range(3000)]
    wrong = ["drusen â‰¥ 63 Âµm", "Ã©dÃ¨me", "BruchÃ¢â‚¬â„¢s membrane"]
    different = sum(open_clip_cleaning.clean(t) != theirs(t) for t in [*texts, *wrong, *NASTY])
    table.check("cleaning of random strings", "open_clip", "different", different, 0)


def test_clip_tokens_are_those_of_transformers(table, tmp_path, hugging_face_words):
    theirs = transformers.CLIPTokenizer.from_pretrained(str(hugging_face_words))
    theirs.save_pretrained(tmp_path)  # as tokenizer.json

    def encode(text: str) -> list[int]:
        return theirs(text, padding="max_length", max_length=77, truncation=True)["input_ids"]

    texts = [text for text in NASTY if not any(0xD800 <= ord(c) < 0xE000 for c in text)]
    for source in (hugging_face_words, tmp_path):
        different = differing(tokenizer_json.import_tokenizer(source), encode, texts)
        table.check("tokens of nasty strings", "CLIP, transformers", "different", len(different), 0)


# --- BERT's English tokenizers.


@pytest.fixture(scope="module")
def bert_words(tmp_path_factory) -> Path:
    """A vocabulary of English."""
    return write_bert_words(tmp_path_factory.mktemp("bert") / "vocab.txt")


@pytest.mark.parametrize("lowercase", [None, True, False])
def test_bert_tokens_are_those_of_transformers(table, tmp_path, bert_words, lowercase):
    (tmp_path / "vocab.txt").write_bytes(bert_words.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    if lowercase is not None:
        told = {"do_lower_case": lowercase, "tokenizer_class": "BertTokenizer"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    ours = tokenizer_json.import_tokenizer(tmp_path)

    def encode(text: str) -> list[int]:
        return theirs(text, padding="max_length", max_length=64, truncation=True)["input_ids"]

    texts = [text for text in NASTY if not any(0xD800 <= ord(c) < 0xE000 for c in text)]
    different = differing(ours, encode, texts)
    table.check("tokens of nasty strings", "BERT, English", "different", len(different), 0)
    # Without being told otherwise, capitals go, whatever the vocabulary has.
    assert ("glaucoma" in ours.decode(ours.encode(["GLAUCOMA"])[0])) is (lowercase is not False)


def test_biomedclip_tokens_are_those_of_open_clip(table, tmp_path, bert_words):
    transformers.BertTokenizer(str(bert_words)).save_pretrained(tmp_path)
    theirs = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=64)
    ours = tokenizer_json.import_tokenizer(tmp_path).with_cleaning("whitespace")
    different = differing(ours, lambda text: theirs(text)[0].numpy(), NASTY)
    table.check("tokens of nasty strings", "BiomedCLIP", "different", len(different), 0)


# --- FLAIR.


@pytest.mark.parametrize("tiny", [True, False])
def test_flair_is_imported(tmp_path, table, relative_error, bert_words, tiny):
    tokenizer = transformers.BertTokenizer(str(bert_words))
    model = flair(tiny, len(tokenizer))
    (tmp_path / "vocab.txt").write_bytes(bert_words.read_bytes())
    torch.save(model.state_dict(), tmp_path / "flair_resnet.pth")
    work = imported("flair", tmp_path / "flair_resnet.pth", tmp_path / "w")
    assert folder.load(work)[0].config["data"]["image_size"] == 512

    squares = np.stack([fit_square(pixels, 512, "flair") for pixels in photographs()])
    pixels = torch.from_numpy(squares.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with torch.no_grad():
        image = flair_image(model, pixels).numpy()
        rows = []
        for phrase in PHRASES:  # one by one, so that there is no padding
            encoded = tokenizer([phrase], truncation=True, max_length=77, return_tensors="pt")
            ids, mask = encoded["input_ids"], encoded["attention_mask"]
            rows.append(flair_text(model, ids, mask)[0].numpy())
        text = np.stack(rows)
        padded = tokenizer(PHRASES, padding=True, return_tensors="pt")
        together = flair_text(model, padded["input_ids"], padded["attention_mask"]).numpy()
    ids = padded["input_ids"].numpy().astype(np.int32)
    label = f"{'tiny ' if tiny else ''}FLAIR"

    # Theirs are unit vectors before they are projected, which the lengths alone show.
    weights, _ = folder.load(work)
    ours = features(weights, pixels.numpy(), ids)
    bound = 1e-5 if tiny else 1e-4
    units = [
        [x / np.linalg.norm(x, axis=1, keepdims=True) for x in pair]
        for pair in zip(ours, (image, text), strict=True)
    ]
    for what, (got, want) in zip(("image", "text"), units, strict=True):
        error = relative_error(got, want)
        table.check(f"{what} features of the system", label, "relative error", error, bound)
    scale = float(np.exp(model.logit_scale.item()))
    logits = scale * units[0][1] @ units[1][1].T
    error = relative_error(scale * units[0][0] @ units[1][0].T, logits)
    table.check("logits of the system", label, "relative error", error, bound)
    different = int(((units[0][0] @ units[1][0].T).argmax(1) != logits.argmax(1)).sum())
    table.check("predicted classes", label, "different", different, 0)
    if tiny:
        want = np.exp(logits - logits.max(1, keepdims=True))
        want /= want.sum(1, keepdims=True)
        clip = vclip_jax.load(work, dtype="float32")
        got = clip.classify([Image.fromarray(p) for p in photographs()], PHRASES)
        off = float(np.abs(got - want).max())
        table.check("probabilities from photographs", label, "largest difference", off, 1e-4)

    # With padding in the mean, as FLAIR has it for several captions at once, embeddings differ.
    assert np.abs(together - text).max() > 1e-3 * np.abs(text).max()
    counted = np.where(padded["attention_mask"].numpy() == 0, COUNTED_PAD_ID, ids)
    got, want = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (features(weights, pixels.numpy(), counted)[1], together)
    )
    error = relative_error(got, want)
    table.check("text features, padded together", label, "relative error", error, bound)


def test_flair_pixels_are_near_those_of_its_preprocessing(table):
    """FLAIR resizes floats, `decode` bytes: at most one level apart."""
    worst = 0.0
    for pixels in photographs():
        want = flair_pixels(pixels)[0].numpy()
        got = fit_square(pixels, 512, "flair").transpose(2, 0, 1) / 255
        worst = max(worst, float(np.abs(got - want).max()))
    table.check("pixels of photographs", "FLAIR, 512 px", "of a range of 1", worst, 1 / 255)


# --- BiomedCLIP.


@pytest.mark.parametrize("tiny", [True, False])
def test_biomedclip_is_imported(tmp_path, table, relative_error, bert_words, tiny):
    tokenizer = transformers.BertTokenizer(str(bert_words))
    model = biomedclip(tiny, len(tokenizer))
    source = tmp_path / "source"
    write_biomedclip(source, model, tokenizer, tiny=tiny)
    work = imported("open_clip", source, tmp_path / "w")
    tokenize = open_clip.tokenizer.HFTokenizer(str(source), context_length=256)
    transform = open_clip.image_transform(64 if tiny else 224, is_train=False)
    pixels = torch.stack([transform(Image.fromarray(p)) for p in photographs()])
    tokens = tokenize(PHRASES)
    with torch.no_grad():
        image, text = model.visual(pixels).numpy(), model.text(tokens).numpy()
    theirs = Theirs(
        pixels.numpy(), tokens.numpy().astype(np.int32), image, text, model.logit_scale.item()
    )
    label = f"{'tiny ' if tiny else ''}BiomedCLIP"
    compare(table, relative_error, work, label, theirs, full=not tiny)


# --- The fit of CLIP and BiomedCLIP.


@pytest.mark.parametrize("size", [224, 336])
def test_centre_crops_are_those_of_open_clip(table, size):
    transform = open_clip.image_transform(size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    rng = np.random.default_rng(0)
    shapes = [(300, 301), (225, 400), (700, 431), (size, 500), (150, 190)]
    noise = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    for pixels in [*photographs(), *noise]:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        want = transform(Image.open(buffer)).numpy().transpose(1, 2, 0)
        got = fit_square(pixels, size, "centre_crop") / np.float32(255)
        off = float(np.abs(got - want).max())
        table.check("pixels of centre crops", f"{size} px", "of a range of 1", off, 1 / 255)
