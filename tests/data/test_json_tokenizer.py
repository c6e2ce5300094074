"""The English tokenizers: their files, cutting and padding."""

import gzip
import json
import pickle

import numpy as np
import pytest

from vclip_jax.data import json_tokenizer
from vclip_jax.data.json_tokenizer import JsonTokenizer, bert_from_vocab, find, in_folder
from vclip_jax.data.tokenizer import Tokenizer

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
    tokenizer = find(clip_files)
    row = tokenizer.encode(["An EYE, eyes"], 12)
    assert row.dtype == np.int32
    assert row.shape == (1, 12)
    assert tokenizer.decode(row[0]) == "an</w> eye</w> ,</w> ey e s</w>"
    assert row[0, 0] == tokenizer.vocab_size - 2
    end = tokenizer.vocab_size - 1
    assert (row[0, 7:] == end).all()
    assert (row[0, :7] != end).all()


def test_long_texts_are_cut_and_keep_their_end(clip_files):
    tokenizer = find(clip_files)
    row = tokenizer.encode(["an an an an"], 4)[0]
    assert row[0] == tokenizer.vocab_size - 2
    assert row[-1] == tokenizer.vocab_size - 1
    assert tokenizer.decode(row) == "an</w> an</w>"


def test_capitals_go_from_english_word_pieces_unless_a_file_says_otherwise(bert_files):
    vocab = bert_files / "vocab.txt"
    rows = bert_from_vocab(vocab).encode(["Eye CAFÉ Eyes"], 8)
    assert rows[0].tolist() == [2, 5, 9, 5, 8, 3, 0, 0]
    assert bert_from_vocab(vocab, lowercase=False).encode(["Eye"], 4)[0].tolist() == [2, 6, 3, 0]
    (bert_files / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert find(bert_files).encode(["Eye"], 4)[0].tolist() == [2, 6, 3, 0]


@pytest.mark.parametrize("cleaning", json_tokenizer.CLEANINGS)
def test_what_is_saved_is_loaded_and_pickled(clip_files, tmp_path, cleaning):
    tokenizer = find(clip_files).with_cleaning(cleaning)
    (tmp_path / "f").mkdir()
    tokenizer.save(tmp_path / "f" / "tokenizer.json")
    texts = ["an&nbsp;EYE", "", "“eye”"]
    want = tokenizer.encode(texts, 9)
    for other in (in_folder(tmp_path / "f"), pickle.loads(pickle.dumps(tokenizer))):
        assert other == tokenizer
        assert hash(other) == hash(tokenizer)
        np.testing.assert_array_equal(other.encode(texts, 9), want)
    assert in_folder(tmp_path) is None


def test_a_folder_with_vocab_txt_has_the_chinese_tokenizer(bert_files):
    assert isinstance(in_folder(bert_files), Tokenizer)


def test_what_is_no_tokenizer_is_refused_in_one_line(clip_files, bert_files, tmp_path):
    with pytest.raises(ValueError, match="there is no tokenizer in"):
        find(tmp_path / "nowhere")
    path = tmp_path / "tokenizer.json"
    for content, message in (
        ("{", "is not JSON"), ("{}", "is not a tokenizer's description"),
        ('{"clean": "all", "tokenizer": {}}', "clean is 'all', not one of"),
    ):  # fmt: skip
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as caught:
            JsonTokenizer.from_file(path)
        assert "\n" not in str(caught.value)
    (clip_files / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(ValueError, match="are not those of a CLIP"):
        find(clip_files / "vocab.json")
    (tmp_path / "bpe.txt.gz").write_bytes(gzip.compress(b"#version\na b\n"))
    with pytest.raises(ValueError, match="48894 merges"):
        find(tmp_path / "bpe.txt.gz")
    (tmp_path / "bpe.txt.gz").write_bytes(b"junk")
    with pytest.raises(ValueError, match="not CLIP's list of merges"):
        find(tmp_path / "bpe.txt.gz")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(ValueError, match=r"lacks \[MASK\]"):
        find(tmp_path / "vocab.txt")


def test_arguments_are_checked(clip_files):
    tokenizer = find(clip_files)
    with pytest.raises(TypeError, match="sequence of texts"):
        tokenizer.encode("eye")
    with pytest.raises(ValueError, match="at least 2"):
        tokenizer.encode(["eye"], 1)
    with pytest.raises(ValueError, match="no token"):
        tokenizer.with_padding("[PAD]")
