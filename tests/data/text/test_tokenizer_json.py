"""The English tokenizers: their files, cutting and padding."""

import gzip
import json
import pickle

import numpy as np
import pytest

from vclip_jax.data.text import tokenizer_json
from vclip_jax.data.text.tokenizer_json import (
    FastTokenizer,
    bert_from_vocab,
    import_tokenizer,
    saved_tokenizer,
)
from vclip_jax.data.text.wordpiece import WordPiece

START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture
def clip_files(tmp_path):
    """A vocabulary of CLIP's kind: letters, letters that end a word, three merges."""
    letters = [chr(code) for code in range(33, 127)]
    merges = [("e", "y"), ("ey", "e</w>"), ("a", "n</w>")]
    tokens = [*letters, *(f"{x}</w>" for x in letters), *("".join(m) for m in merges), START, END]
    (tmp_path / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    lines = "\n".join(" ".join(merge) for merge in merges)
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{lines}\n")
    return tmp_path


@pytest.fixture
def bert_files(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "eye", "Eye", "a", "##s", "cafe"]
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    return tmp_path


def test_byte_pairs_are_merged_within_words_and_rows_end(clip_files):
    tokenizer = import_tokenizer(clip_files)
    row = tokenizer.encode(["An EYE, eyes"], 12)
    assert row.dtype == np.int32
    assert row.shape == (1, 12)
    assert tokenizer.decode(row[0]) == "an</w> eye</w> ,</w> ey e s</w>"
    assert row[0, 0] == tokenizer.vocab_size - 2
    end = tokenizer.vocab_size - 1
    assert (row[0, 7:] == end).all()
    assert (row[0, :7] != end).all()


def test_long_texts_are_cut_and_keep_their_end(clip_files):
    tokenizer = import_tokenizer(clip_files)
    row = tokenizer.encode(["an an an an"], 4)[0]
    assert row[0] == tokenizer.vocab_size - 2
    assert row[-1] == tokenizer.vocab_size - 1
    assert tokenizer.decode(row) == "an</w> an</w>"


def test_capitals_go_from_english_word_pieces_unless_a_file_says_otherwise(bert_files):
    vocab = bert_files / "vocab.txt"
    rows = bert_from_vocab(vocab).encode(["Eye CAFÉ Eyes"], 8)
    assert rows[0].tolist() == [2, 5, 9, 5, 8, 3, 0, 0]
    (bert_files / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert import_tokenizer(bert_files).encode(["Eye"], 4)[0].tolist() == [2, 6, 3, 0]


@pytest.mark.parametrize("cleaning", tokenizer_json.CLEANINGS)
def test_what_is_saved_is_loaded_and_pickled(clip_files, tmp_path, cleaning):
    tokenizer = import_tokenizer(clip_files).with_cleaning(cleaning)
    (tmp_path / "f").mkdir()
    tokenizer.save(tmp_path / "f" / "tokenizer.json")
    texts = ["an&nbsp;EYE", "", "“eye”"]
    want = tokenizer.encode(texts, 9)
    for other in (saved_tokenizer(tmp_path / "f"), pickle.loads(pickle.dumps(tokenizer))):
        assert other == tokenizer
        assert hash(other) == hash(tokenizer)
        np.testing.assert_array_equal(other.encode(texts, 9), want)
    assert saved_tokenizer(tmp_path) is None


def test_a_folder_with_vocab_txt_has_the_chinese_tokenizer(bert_files):
    assert isinstance(saved_tokenizer(bert_files), WordPiece)


def test_what_is_no_tokenizer_is_refused_in_one_line(clip_files, bert_files, tmp_path):
    with pytest.raises(ValueError, match="there is no tokenizer in"):
        import_tokenizer(tmp_path / "nowhere")
    path = tmp_path / "tokenizer.json"
    for content, message in (
        ("{", "is not JSON"),
        ("{}", "is not a tokenizer's description"),
        ('{"clean": "all", "tokenizer": {}}', "clean is 'all', not one of"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as caught:
            FastTokenizer.from_file(path)
        assert "\n" not in str(caught.value)
    (clip_files / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(ValueError, match="are not those of a CLIP"):
        import_tokenizer(clip_files / "vocab.json")
    (tmp_path / "bpe.txt.gz").write_bytes(gzip.compress(b"#version\na b\n"))
    with pytest.raises(ValueError, match="48894 merges"):
        import_tokenizer(tmp_path / "bpe.txt.gz")
    (tmp_path / "bpe.txt.gz").write_bytes(b"junk")
    with pytest.raises(ValueError, match="not CLIP's list of merges"):
        import_tokenizer(tmp_path / "bpe.txt.gz")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(ValueError, match=r"lacks \[MASK\]"):
        import_tokenizer(tmp_path / "vocab.txt")


def test_arguments_are_checked(clip_files):
    tokenizer = import_tokenizer(clip_files)
    with pytest.raises(TypeError, match="sequence of texts"):
        tokenizer.encode("eye")
    with pytest.raises(ValueError, match="at least 2"):
        tokenizer.encode(["eye"], 1)
    with pytest.raises(ValueError, match="no token"):
        tokenizer.with_padding("[PAD]")


# --- Files of strangers.

SMALL = {
    "model": {"type": "WordLevel", "vocab": {"[CLS]": 0, "[SEP]": 1, "a": 2}, "unk_token": "a"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0]},
    "pre_tokenizer": {"type": "Whitespace"},
}


def split(expression):
    return {
        "type": "Split",
        "pattern": {"Regex": expression},
        "behavior": "Isolated",
        "invert": False,
    }


def described(tmp_path, **changes):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(SMALL | changes))
    return FastTokenizer.from_file(path)


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts), "normalizers": list(parts)}


@pytest.mark.parametrize(
    "expression",
    [
        r"\s+",
        r"(?i)<\|startoftext\|>|<\|endoftext\|>|'s|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
        r" ?\p{L}+| ?[^\s\p{L}]+",
        "x",
    ],
)
def test_plain_expressions_of_a_strangers_tokenizer_are_taken(tmp_path, expression):
    tokenizer = described(tmp_path, pre_tokenizer=split(expression))
    assert tokenizer.encode(["a" * 100_000], 4).shape == (1, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_tokenizer": split("(x+x+)+y")}, "regular expression"),
        ({"pre_tokenizer": sequence(split("(a|aa)+$"))}, "regular expression"),
        ({"pre_tokenizer": split(r"\s*\s*\s*\s*\s*\s*x")}, "regular expression"),
        ({"pre_tokenizer": split("a" * 10_000)}, "regular expression"),
        ({"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}}, "grow"),
        ({"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}}, "nothing"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}}, "'Precompiled'"),
        ({"model": SMALL["model"] | {"type": "Unigram"}}, "'Unigram'"),
        ({"model": SMALL["model"] | {"max_input_chars_per_word": 10**9}}, "max_input_chars"),
        ({"model": SMALL["model"] | {"type": "BPE", "dropout": 0.5}}, "dropout"),
        (
            {"model": SMALL["model"] | {"vocab": {"[CLS]": 0, "[SEP]": 1, "a": 4_000_000_000}}},
            "number 4000000000",
        ),
        (
            {"model": SMALL["model"] | {"vocab": {"[CLS]": 0, "[SEP]": 1, "a": 1}}},
            r"two tokens with the number 1, '\[SEP\]' and 'a'",
        ),
        ({"added_tokens": [{"id": 0, "content": "x"}]}, "two tokens with the number 0, .* and 'x'"),
        ({"model": 3}, "it has no model"),
        ({"post_processor": SMALL["post_processor"] | {"sep": ["[SEP]", 9]}}, "number 9"),
        (
            {
                "padding": {
                    "strategy": "BatchLongest",
                    "direction": "Right",
                    "pad_id": 4_000_000_000,
                    "pad_to_multiple_of": None,
                    "pad_type_id": 0,
                    "pad_token": "a",
                }
            },
            "number 4000000000",
        ),
    ],
)
def test_what_takes_for_ever_or_all_memory_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        described(tmp_path, **changes)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("tokens", "merges", "message"),
    [
        ({"x": 2**31}, "", "number 2147483648"),  # the package would make room for so many
        ({"x": -1}, "", "number -1"),
        ({"x": 1}, "", r"two tokens with the number 1, '<\|endoftext\|>' and 'x'"),
        ({"\ud800": 2}, "", "do not belong together"),
        ({}, "x y\n", "do not belong together"),
    ],
)
def test_a_strangers_vocabulary_is_refused_in_one_line(tmp_path, tokens, merges, message):
    (tmp_path / "vocab.json").write_text(json.dumps({START: 0, END: 1, **tokens}))
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(ValueError, match=message) as caught:
        import_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [([1], "does not hold an object"), ({"strip_accents": "yes"}, "strip_accents is 'yes'")],
)
def test_settings_beside_a_vocabulary_are_read_or_refused(bert_files, content, message):
    (bert_files / "tokenizer_config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"tokenizer_config\.json.*{message}"):
        import_tokenizer(bert_files)


def test_a_text_that_the_package_cannot_read_is_an_error_of_one_line(tmp_path):
    model = SMALL["model"] | {"unk_token": "none"}
    tokenizer = described(tmp_path, model=model)
    assert tokenizer.encode(["a"], 4).tolist() == [[0, 2, 1, 0]]
    with pytest.raises(ValueError, match="cannot read a text"):
        tokenizer.encode(["b"], 4)


def test_deep_json_is_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": ' + "[" * 100_000)
    with pytest.raises(ValueError, match="levels deep"):
        saved_tokenizer(tmp_path)


def test_a_list_of_merges_that_unpacks_to_gigabytes_is_refused(tmp_path):
    with gzip.open(tmp_path / "bpe_simple_vocab_16e6.txt.gz", "wb", 1) as file:
        for _ in range(70):
            file.write(bytes(1 << 20))
    with pytest.raises(ValueError, match="more than 67,108,864 bytes"):
        import_tokenizer(tmp_path)
