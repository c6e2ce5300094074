"""The tokenizer against transformers' BertTokenizer, vocabularies, and what is refused."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.data.text.wordpiece import WordPiece

REAL = Path(__file__).parents[4] / "shared/data/vocab/bert-base-chinese-vocab.txt"
TEXTS = [
    "疑似黄斑区域病变。",
    "右眼：中度非增殖期糖尿病视网膜病变，C/D=0.45",
    "“疑似”青光眼（杯盘比0.8），RNFL缺损",
    "",
    "  Café ÀÉÎ naïve\tunaffable 1920x1080 ",
    "眼底彩照" * 40,
    "😀 emoji 龘 \u2028 line",
    "DR2级,NPDR;玻璃体積血!",
]


def small() -> WordPiece:
    return WordPiece(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "眼", "底", "un", "##aff", "##able", '"', "2", "##0"]
    )


def test_rows_are_cls_pieces_sep_and_zeros():
    ids = small().encode(["眼底", "", "unaffable 20", "“眼”"], 8)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(
        ids,
        [
            [2, 4, 5, 3, 0, 0, 0, 0],
            [2, 3, 0, 0, 0, 0, 0, 0],
            [2, 6, 7, 8, 10, 11, 3, 0],
            [2, 9, 4, 9, 3, 0, 0, 0],
        ],
    )


def test_long_texts_are_cut_and_keep_their_sep():
    ids = small().encode(["眼" * 100])
    assert ids.shape == (1, 52)
    np.testing.assert_array_equal(ids[0], [2, *[4] * 50, 3])


def test_special_tokens_in_text_are_only_text():
    ids = small().encode(["[SEP]眼[CLS]"], 12)[0]
    assert ids.tolist() == [2, 1, 1, 1, 4, 1, 1, 1, 3, 0, 0, 0]


def test_unknown_characters_become_unk():
    assert small().encode(["眼龘底"], 8)[0].tolist() == [2, 4, 1, 5, 3, 0, 0, 0]
    assert small().decode(small().encode(["眼龘底"], 8)[0]) == "眼 [UNK] 底"


def test_half_a_character_is_dropped_and_both_are_one():
    encode = small().encode
    for half in "\ud83d\udc41":
        assert (encode([f"眼{half}底"]) == encode(["眼底"])).all()
    assert (encode(["\ud83d\udc41"]) == encode(["👁"])).all()


@pytest.mark.skipif(not REAL.exists(), reason=f"the vocabulary {REAL} is not there")
def test_the_real_vocabulary_gives_what_transformers_gives():
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertTokenizer(str(REAL), do_lower_case=True)
    texts = [text.lower().replace("“", '"').replace("”", '"') for text in TEXTS]
    expected = reference(texts, padding="max_length", truncation=True, max_length=52)["input_ids"]
    tokenizer = WordPiece.load(str(REAL))
    assert tokenizer.vocab_size == 21128
    np.testing.assert_array_equal(tokenizer.encode(TEXTS), expected)


def test_a_small_vocabulary_gives_what_transformers_gives(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = WordPiece.from_captions(TEXTS)
    tokenizer.save(tmp_path / "vocab.txt")
    reference = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=True)
    texts = [text.lower().replace("“", '"').replace("”", '"') for text in TEXTS]
    expected = reference(texts, padding="max_length", truncation=True, max_length=52)["input_ids"]
    np.testing.assert_array_equal(tokenizer.encode(TEXTS), expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=5))
def test_a_vocabulary_of_captions_knows_all_of_them(captions):
    tokenizer = WordPiece.from_captions(captions)
    assert not (tokenizer.encode(captions) == 1).any()
    assert tokenizer == WordPiece.from_captions(reversed(captions))


def test_a_vocabulary_of_captions_is_sorted_by_frequency_then_code_point():
    tokenizer = WordPiece.from_captions(["眼底眼", "眼b乙甲", "10"])
    assert tokenizer.vocabulary == (
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        *("眼", "##0", "1", "b", "乙", "底", "甲"),
    )


def test_saving_loading_and_pickling_change_nothing(tmp_path):
    tokenizer = WordPiece.from_captions(TEXTS)
    tokenizer.save(tmp_path / "vocab.txt")
    for copy in (
        WordPiece.load(str(tmp_path / "vocab.txt")),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert copy == tokenizer
        np.testing.assert_array_equal(copy.encode(TEXTS), tokenizer.encode(TEXTS))


def test_windows_line_ends_are_read(tmp_path):
    (tmp_path / "v.txt").write_bytes("\r\n".join(small().vocabulary).encode() + b"\r\n")
    assert WordPiece.load(str(tmp_path / "v.txt")) == small()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("[PAD]\n[UNK]\n[CLS]\n", r"lacks \[SEP\]"),
        ("", "among its 0 tokens"),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n眼\n眼\n", "'眼' is listed more than once"),
        ("[PAD]\n[UNK]\n\n[CLS]\n[SEP]\n", "line 3 is empty"),
        ("[UNK]\n[PAD]\n[CLS]\n[SEP]\n", "PAD.* must be the first"),
        (b"\xff\xfe[\x00", "not UTF-8"),
    ],
)
def test_a_bad_vocabulary_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        WordPiece.from_vocab(path)
    assert "\n" not in str(caught.value)
    assert "vocab.txt" in str(caught.value)


def test_one_string_and_a_short_context_are_refused():
    with pytest.raises(TypeError, match="not one string"):
        small().encode("眼底")
    with pytest.raises(ValueError, match="at least 2"):
        small().encode(["眼"], 1)


def test_importing_it_loads_neither_transformers_nor_jax():
    code = (
        "import sys, vclip_jax.data.text.wordpiece as t;"
        "print([m for m in ('transformers', 'jax', 'tensorflow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
