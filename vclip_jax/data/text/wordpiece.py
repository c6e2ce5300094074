"""Chinese text to token ids, as in BERT-base-Chinese, RoBERTa-wwm-ext and Chinese-CLIP."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import tokenizers
from tokenizers import models
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from vclip_jax.data.text.tokenizer import CONTEXT_LENGTH, characters, rows
from vclip_jax.files.errors import first_line
from vclip_jax.files.foreign import hub_name, read_bytes

MOST_VOCABULARY: Final = 64 << 20
"""Bytes of a file with tokens; the largest known has 17 MB."""
SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_REQUIRED: Final = SPECIAL[:4]
_LONGEST_WORD: Final = 200
"""Longer words become [UNK], as in Google's BERT."""


class WordPiece:
    """WordPiece with a vocabulary; immutable and picklable.

    Text is cleaned, lower-cased, stripped of accents and split around every Chinese character and
    punctuation mark. Special tokens are never read from text: "[SEP]" in a caption is three words.
    """

    file_name = "vocab.txt"

    def __init__(self, vocabulary: Sequence[str], *, name: str = "vocabulary"):
        """Take the tokens in the order of their ids.

        Args:
            vocabulary: tokens; continuation pieces start with "##".
            name: the vocabulary's name in error messages.

        Raises:
            ValueError: a token is repeated or empty, [PAD], [CLS], [SEP] or [UNK] is missing, or
                [PAD] is not id 0 (which the text tower masks).
        """
        self.vocabulary = tuple(vocabulary)
        ids = {token: index for index, token in enumerate(self.vocabulary)}
        if "" in ids:
            raise ValueError(f"{name}: line {ids[''] + 1} is empty; every line must hold a token")
        if len(ids) != len(self.vocabulary):
            repeated = next(t for t, n in Counter(self.vocabulary).items() if n > 1)
            raise ValueError(f"{name}: the token {repeated!r} is listed more than once")
        missing = [token for token in _REQUIRED if token not in ids]
        if missing:
            raise ValueError(
                f"{name}: not a BERT vocabulary, it lacks {', '.join(missing)} "
                f"among its {len(ids)} tokens"
            )
        if ids["[PAD]"] != 0:
            raise ValueError(f"{name}: [PAD] must be the first token, it is number {ids['[PAD]']}")
        self._start, self._end = ids["[CLS]"], ids["[SEP]"]
        self.unknown_id: int | None = ids["[UNK]"]
        self._pieces = tokenizers.Tokenizer(
            models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD)
        )
        self._pieces.normalizer = _normalizer()
        self._pieces.pre_tokenizer = BertPreTokenizer()

    def __reduce__(self) -> tuple[type["WordPiece"], tuple[tuple[str, ...]]]:
        return WordPiece, (self.vocabulary,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WordPiece) and self.vocabulary == other.vocabulary

    def __hash__(self) -> int:
        return hash(self.vocabulary)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.vocabulary)

    @classmethod
    def load(cls, name: str) -> "WordPiece":
        """Read a vocabulary file, or one from the Hub: "hub:hfl/chinese-roberta-wwm-ext".

        "@REVISION" after the name selects a branch, a tag or a commit.

        Raises:
            ValueError: see `from_vocab`, or the Hub has no such file or cannot be reached.
        """
        if not name.startswith("hub:"):
            return cls.from_vocab(name)
        from huggingface_hub import hf_hub_download

        repository, revision = hub_name(name)
        try:
            path = hf_hub_download(repository, "vocab.txt", revision=revision)
        except Exception as error:  # the Hub's client raises a dozen unrelated types
            reason = first_line(error)
            raise ValueError(
                f"cannot get vocab.txt of {repository!r} from the Hub ({reason}): "
                "give the path of a vocabulary file instead"
            ) from error
        return cls.from_vocab(path)

    @classmethod
    def from_vocab(cls, path: str | os.PathLike[str]) -> "WordPiece":
        """Read a vocabulary file: UTF-8, one token a line, the line number is the id.

        Raises:
            ValueError: there is no such file, it is not UTF-8, or see `WordPiece`.
        """
        try:
            text = read_bytes(path, MOST_VOCABULARY).decode("utf-8")
        except OSError as error:
            raise ValueError(f"{path}: cannot read the vocabulary: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: the vocabulary is not UTF-8 (byte {error.start}): "
                "expected a text file with one token a line"
            ) from None
        # Not splitlines(): the vocabulary has U+2028, which splitlines() takes for a line's end.
        lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
        return cls(lines[:-1] if lines[-1] == "" else lines, name=os.fspath(path))

    @classmethod
    def from_captions(cls, captions: Iterable[str]) -> "WordPiece":
        """Make a small vocabulary: the special tokens and every character of the captions.

        Characters come in the order of their frequency, then of their code point, so that the
        vocabulary depends on the captions alone. A character that continues a word (digits, Latin
        letters) has an entry of its own, "##" first.
        """
        normalizer, splitter = _normalizer(), BertPreTokenizer()
        seen: Counter[str] = Counter()
        # Captions repeat a lot; splitting is the slow part.
        for caption, times in Counter(captions).items():
            words = splitter.pre_tokenize_str(normalizer.normalize_str(_clean(caption)))
            for word, _ in words:
                for piece in [word[0], *(f"##{character}" for character in word[1:])]:
                    seen[piece] += times
        pieces = sorted(seen, key=lambda piece: (-seen[piece], piece))
        return cls([*SPECIAL, *pieces], name="vocabulary of the captions")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as a file that `from_vocab` and `transformers` read."""
        Path(path).write_bytes("".join(f"{t}\n" for t in self.vocabulary).encode("utf-8"))

    def encode(self, texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> np.ndarray:
        """Return token ids: [CLS], the text's first pieces, [SEP], zeros; see `tokenizer.rows`."""
        return rows(texts, context_length, self.pieces, start=self._start, end=self._end, pad=0)

    def pieces(self, text: str) -> list[int]:
        """Return all token ids of a text, without [CLS] and [SEP]; `unknown_id` if unknown."""
        return self._pieces.encode(_clean(text), add_special_tokens=False).ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the tokens of one row for display: spaced, without [PAD], [CLS] and [SEP]."""
        tokens = (self.vocabulary[int(i)] for i in ids)
        return " ".join(t for t in tokens if t not in ("[PAD]", "[CLS]", "[SEP]"))


def _clean(text: str) -> str:
    """Prepare a caption as Chinese-CLIP does."""
    return characters(text).lower().replace("“", '"').replace("”", '"')


def _normalizer() -> BertNormalizer:
    return BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )
