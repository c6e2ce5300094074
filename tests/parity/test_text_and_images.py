"""Token ids and pixels against Chinese-CLIP's tokenizer and image transform."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vclip_jax.data.images.decode import decode
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.datasets.synthetic.caption import caption
from vclip_jax.datasets.synthetic.domains import sample_case
from vclip_jax.datasets.synthetic.render import render
from vclip_jax.models.clip import IMAGE_STD, normalise_image

pytest.importorskip("torch", reason="needs the [parity] extra: torch")
clip = pytest.importorskip("cn_clip.clip", reason="needs the [parity] extra: cn-clip")
prepare = pytest.importorskip("cn_clip.training.data")._preprocess_text
PHOTOGRAPHS = Path(__file__).parents[3] / "shared/data"

NASTY = [
    "",
    " ",
    "\t\n",
    "。",
    "糖尿病视网膜病变",
    "OCT检查DR3级，视力0.5",
    "ＦＵＬＬ　ｗｉｄｔｈ　１２３",
    "naïve café Ünïcödé",
    "İstanbul ŉ ǆ",
    "👁️眼底👩‍⚕️🏥",
    "[CLS][SEP][PAD]",
    "[MASK] [unused1]",
    "a" * 300,
    "病" * 300,
    "x" * 199 + "眼",
    "ab\u200bcd\ufeffef",
    "a\u0000b\ufffdc",
    "e\u0301a\u0308",
    "한국어 텍스트",
    "ภาษาไทย",
    "עברית",
    "العربية",
    "𠀀𪛖豈更",
    "1,234.56%（±3σ）≥½",
    "don't—won't…",
    "“双引号”and“quotes”",
    "A/B\\C|D_E~F`G^H",
    "\u3000全角空格\u00a0不换行",
    "ⅠⅡⅢ①②③",
    "㎜ ㎏ ℃ Å",
    "line\u2028separator\u2029paragraph",
    "\u0300leading accent",
    "##眼 ##a",
    "視網膜 黃斑",
    "ﬁ ﬂ ß ẞ ς Σ",
]


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece.from_vocab(Path(clip.__file__).parent / "vocab.txt")


@pytest.mark.parametrize("length", [52, 24, 77])
def test_nasty_strings_get_the_same_tokens(tokenizer, length):
    got = tokenizer.encode(NASTY, length)
    want = clip.tokenize([prepare(text) for text in NASTY], context_length=length).numpy()
    for text, ours, theirs in zip(NASTY, got, want, strict=True):
        assert ours.tolist() == theirs.tolist(), repr(text)


def test_ten_thousand_captions_get_the_same_tokens(tokenizer, table):
    texts = [caption(sample_case("synfundus_like", 3, index)) for index in range(10_000)]
    got, want = tokenizer.encode(texts, 52), clip.tokenize([prepare(t) for t in texts]).numpy()
    different = int((got != want).any(axis=1).sum())
    table.check("tokens of 10,000 captions", "RoBERTa-wwm-ext", "different captions", different, 0)


def encoded_images():
    for index in range(4):
        side = (512, 777)[index % 2]
        image = Image.fromarray(render(sample_case("synfundus_like", 4, index), side, side + 90))
        for kind, options in (("JPEG", {"quality": 90}), ("PNG", {})):
            buffer = io.BytesIO()
            image.save(buffer, kind, **options)
            yield buffer.getvalue()
    for path in sorted(PHOTOGRAPHS.rglob("*.jpg"))[::40]:
        yield path.read_bytes()


@pytest.mark.parametrize("size", [224, 336])
def test_pixels_are_those_of_their_image_transform(size, table):
    transform = clip.image_transform(size)
    deviation = np.array(IMAGE_STD)[:, None, None]
    for data in encoded_images():
        want = transform(Image.open(io.BytesIO(data))).numpy()
        got = np.asarray(normalise_image(decode(data, size, "squash")))
        off = float((np.abs(got.transpose(2, 0, 1) - want) * deviation).max())
        table.check("pixels of photographs", f"{size} px", "of a range of 1", off, 1 / 255)
