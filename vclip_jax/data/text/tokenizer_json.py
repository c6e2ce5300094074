"""The tokenizers of other systems: CLIP's byte pairs, and BERT's word pieces in English.

Their files come in several forms; each is converted to one `tokenizer.json`, as the `tokenizers`
package writes it. Some systems also clean texts first, see `open_clip_cleaning`.
"""

import gzip
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, processors

from vclip_jax.data.text import tokenizer_checks
from vclip_jax.data.text.open_clip_cleaning import clean
from vclip_jax.data.text.tokenizer import CONTEXT_LENGTH, Tokenizer, characters, rows
from vclip_jax.data.text.wordpiece import MOST_VOCABULARY, SPECIAL, WordPiece
from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import read_bytes, read_json

TOKENIZER: Final = "tokenizer.json"
VOCAB: Final = WordPiece.file_name
CLEANINGS: Final = ("none", "whitespace", "lower")


class FastTokenizer:
    """A tokenizer of the `tokenizers` package with its start and end; immutable and picklable.

    Unlike `WordPiece` it reads special tokens from text, as the other systems do.
    """

    file_name = TOKENIZER

    def __init__(self, description: str, *, clean: str = "none", name: str = TOKENIZER):
        """Take a description that the `tokenizers` package wrote.

        Args:
            description: JSON, whose post-processor puts one token before a text and one after it.
            clean: the cleaning of texts: none ("none"), open_clip's ("whitespace"), open_clip's and
                lower case ("lower").
            name: the description's name in error messages.

        Raises:
            ValueError: one line: the text is not such a description.
        """
        _check_cleaning(clean, name)
        with _one_line(f"{name} is not a tokenizer's description"):
            self._tokenizer = tokenizers.Tokenizer.from_str(description)
        padding = self._tokenizer.padding or {"pad_id": 0}
        self._tokenizer.no_truncation()
        self._description = self._tokenizer.to_str()  # one form for all writers
        self._tokenizer.no_padding()
        around = self._tokenizer.encode("").ids
        if len(around) != 2:
            raise ValueError(
                f"{name} puts {len(around)} special tokens around a text, not a start and an end"
            )
        self._start, self._end = around
        self._pad = padding["pad_id"]
        highest = max(self._start, self._end, self._pad, *self._tokenizer.get_vocab().values())
        if highest >= self.vocab_size:
            raise ValueError(
                f"{name} has a token with the number {highest}, but only {self.vocab_size} tokens"
            )
        self.unknown_id = self._unknown()
        self._clean = clean

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._description, self._clean)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FastTokenizer) and (self._description, self._clean) == (
            other._description,
            other._clean,
        )

    def __hash__(self) -> int:
        return hash((self._description, self._clean))

    @property
    def pad_id(self) -> int:
        """The token id that pads rows."""
        return self._pad

    def with_padding(self, token: str) -> "FastTokenizer":
        """Return the same tokenizer with another padding token.

        Raises:
            ValueError: the vocabulary has no such token.
        """
        changed = tokenizers.Tokenizer.from_str(self._description)
        index = changed.token_to_id(token)
        if index is None:
            raise ValueError(f"the tokenizer has no token {token!r} to pad with")
        changed.enable_padding(pad_id=index, pad_token=token)
        return FastTokenizer(changed.to_str(), clean=self._clean)

    def with_cleaning(self, clean: str) -> "FastTokenizer":
        """Return the same tokenizer with another cleaning of texts: see `clean` above."""
        return FastTokenizer(self._description, clean=clean)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self._tokenizer.get_vocab_size()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `from_file` reads, and other programs too if there is no cleaning."""
        text = self._description
        if self._clean != "none":
            text = json.dumps(
                {"clean": self._clean, "tokenizer": json.loads(text)}, ensure_ascii=False
            )
        Path(path).write_text(text, "utf-8")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "FastTokenizer":
        """Read a `tokenizer.json` of this or another program.

        Raises:
            ValueError: one line: the file is not one.
        """
        content = _read_json(Path(path))
        name = os.fspath(path)
        clean, description = "none", content
        if isinstance(content, dict) and "tokenizer" in content:
            clean, description = content.get("clean", "none"), content["tokenizer"]
        _check_cleaning(clean, name)
        tokenizer_checks.check(description, name)
        return cls(json.dumps(description, ensure_ascii=False), clean=clean, name=name)

    def encode(self, texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> np.ndarray:
        """Return token ids, int32 `[len(texts), context_length]`, see `tokenizer.rows`.

        A row is start, the text's first tokens, end and padding.
        """
        start, end = self._start, self._end
        return rows(texts, context_length, self.pieces, start=start, end=end, pad=self._pad)

    def pieces(self, text: str) -> list[int]:
        """Return all token ids of a text, without start and end; `unknown_id` for unknown words."""
        text = characters(text)
        if self._clean != "none":
            text = clean(text)
        if self._clean == "lower":
            text = text.lower()
        with _one_line("the model's tokenizer cannot read a text"):
            return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _unknown(self) -> int | None:
        """Return the token of a word that the vocabulary lacks; None if bytes spell every word."""
        model = json.loads(self._description)["model"]
        if model.get("unk_id") is not None:  # Unigram
            return int(model["unk_id"])
        token = model.get("unk_token")
        index = None if token is None else self._tokenizer.token_to_id(token)
        return None if index in (self._start, self._end, self._pad) else index

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the tokens of one row `[context_length]` for display.

        They are spaced, without start, end and padding.
        """
        special = {self._start, self._end, self._pad}
        tokens = (self._tokenizer.id_to_token(int(i)) for i in ids if int(i) not in special)
        return " ".join(token or "?" for token in tokens)


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn every error of the `tokenizers` package into a ValueError: one line with `what`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the package raises this very type, or a panic of Rust
        raise ValueError(f"{what} ({one_line(error, 200)})") from error


def _check_cleaning(clean: Any, name: str) -> None:
    if clean not in CLEANINGS:
        raise ValueError(f"{name}: clean is {clean!r}, not one of {', '.join(CLEANINGS)}")


def _restore(description: str, cleaning: str) -> FastTokenizer:
    return FastTokenizer(description, clean=cleaning)


def saved_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer | None:
    """Return the tokenizer of a run's workdir or a portable folder, or None if it has none.

    Raises:
        ValueError: the tokenizer's file is damaged.
    """
    if (Path(folder) / TOKENIZER).is_file():
        return FastTokenizer.from_file(Path(folder) / TOKENIZER)
    if (Path(folder) / VOCAB).is_file():
        return WordPiece.from_vocab(Path(folder) / VOCAB)
    return None


# --- CLIP's tokenizer, in the forms in which it is published.

# Contractions, runs of letters, single digits, runs of anything else; and the special tokens.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_MERGES: Final = 49152 - 256 - 2
"""The number of the file's merges that belong to CLIP's vocabulary."""


def clip_from_merges(path: Path) -> FastTokenizer:
    """Read `bpe_simple_vocab_16e6.txt.gz`, the file of OpenAI's CLIP and of open_clip.

    The vocabulary is bytes, bytes that end a word, the merges, the two special tokens; texts are
    cleaned and rows padded with 0, as in open_clip.

    Raises:
        ValueError: the file is not that one.
    """
    try:
        with gzip.open(path) as file:
            content = file.read(MOST_VOCABULARY + 1)
        if len(content) > MOST_VOCABULARY:
            raise ValueError(f"more than {MOST_VOCABULARY:,} bytes")
        lines = content.decode("utf-8").split("\n")
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is not CLIP's list of merges ({error})") from error
    merges = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
    if len(merges) != _MERGES or any(len(merge) != 2 for merge in merges):
        raise ValueError(f"{path} does not have CLIP's {_MERGES} merges of two tokens each")
    letters = _byte_letters()
    start, end = "<start_of_text>", "<end_of_text>"
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(merge) for merge in merges),
        start,
        end,
    ]
    ids = {token: index for index, token in enumerate(tokens)}
    with _one_line(f"{path} is not CLIP's list of merges"):
        return _clip(ids, [(a, b) for a, b in merges], start, end, openai=True)


def clip_from_vocab(path: Path) -> FastTokenizer:
    """Read `vocab.json` and the `merges.txt` next to it, as Hugging Face's `transformers` does.

    Raises:
        ValueError: a file is missing or is not what its name says.
    """
    ids = _read_json(path)
    merges_path = path.with_name("merges.txt")
    if not isinstance(ids, dict) or not all(type(index) is int for index in ids.values()):
        raise ValueError(f"{path} is not a vocabulary: it should map tokens to numbers")
    tokenizer_checks.check_numbers(ids, [], os.fspath(path))
    try:
        lines = read_bytes(merges_path, MOST_VOCABULARY).decode("utf-8").split("\n")
    except OSError as error:
        raise ValueError(f"{merges_path}: cannot read the merges: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{merges_path}: the merges are not UTF-8 ({error})") from None
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    start, end = "<|startoftext|>", "<|endoftext|>"
    if start not in ids or end not in ids or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{path} and {merges_path.name} are not those of a CLIP")
    with _one_line(f"{path} and {merges_path.name} do not belong together"):
        return _clip(ids, [(pair[0], pair[1]) for pair in pairs], start, end, openai=False)


def _clip(
    ids: dict[str, int], merges: list[tuple[str, str]], start: str, end: str, *, openai: bool
) -> FastTokenizer:
    """Make a byte pair tokenizer; with `openai` the original, else that of `transformers`."""
    tokenizer = tokenizers.Tokenizer(
        models.BPE(ids, merges, end_of_word_suffix="</w>", unk_token=end)
    )
    special = "|".join(re.escape(token) for token in (start, end))
    if not openai:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"(?i){special}|{_WORDS}"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([start, end])
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, ids[end]), (start, ids[start]), trim_offsets=False, add_prefix_space=False
    )
    if not openai:
        tokenizer.enable_padding(pad_id=ids[end], pad_token=end)
    return FastTokenizer(tokenizer.to_str(), clean="lower" if openai else "none")


def _byte_letters() -> list[str]:
    """List the letters that stand for bytes, in the order of CLIP's vocabulary.

    Printable characters of Latin-1 stand for themselves and come first; the other bytes follow as
    the letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + n) for n in range(256 - len(printable))]


# --- BERT's tokenizer.


def bert_from_vocab(path: Path) -> FastTokenizer:
    """Read `vocab.txt`, as `transformers` does.

    Texts lose capitals and accents unless `tokenizer_config.json` next to the file says otherwise,
    even if the vocabulary has capitals, as Bio_ClinicalBERT's has.

    Args:
        path: a file with a token a line; the five special tokens are among them, [PAD] is the
            first.

    Raises:
        ValueError: the file is not such a vocabulary.
    """
    vocabulary = WordPiece.from_vocab(path).vocabulary
    ids = {token: index for index, token in enumerate(vocabulary)}
    if missing := [token for token in SPECIAL if token not in ids]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    settings_path = path.with_name("tokenizer_config.json")
    settings = _settings(settings_path)
    accents = settings.get("strip_accents")
    if accents is not None and not isinstance(accents, bool):
        raise ValueError(
            f"{settings_path}: strip_accents is {str(accents)[:50]!r}, not true or false"
        )
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=accents,
        lowercase=bool(settings.get("do_lower_case", True)),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    return FastTokenizer(tokenizer.to_str(), name=os.fspath(path))


def import_tokenizer(source: str | os.PathLike[str]) -> FastTokenizer:
    """Read a system's tokenizer from any of its files.

    Args:
        source: a folder with, or the path of, `tokenizer.json`, `vocab.json` (with `merges.txt`),
            `bpe_simple_vocab_16e6.txt.gz` or `vocab.txt`.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    path = Path(source)
    if path.is_dir():
        places = [
            path / TOKENIZER,
            path / "vocab.json",
            *sorted(path.glob("bpe*.gz")),
            path / VOCAB,
        ]
        path = next((place for place in places if place.is_file()), path)
    if not path.is_file():
        raise ValueError(
            f"there is no tokenizer in {path}: name tokenizer.json, vocab.json (with merges.txt), "
            "bpe_simple_vocab_16e6.txt.gz or vocab.txt by --vocab PATH"
        )
    if path.suffix == ".gz":
        return clip_from_merges(path)
    if path.suffix == ".txt":
        return bert_from_vocab(path)
    if path.name == "vocab.json":
        return clip_from_vocab(path)
    return _with_padding(FastTokenizer.from_file(path), path.with_name("tokenizer_config.json"))


def _with_padding(tokenizer: FastTokenizer, config: Path) -> FastTokenizer:
    """Set the padding token of `tokenizer_config.json`, where `transformers` keeps it."""
    token = _settings(config).get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    return tokenizer if token is None else tokenizer.with_padding(str(token))


def _settings(path: Path) -> dict[str, Any]:
    """Return the content of a `tokenizer_config.json`, or nothing if there is no such file."""
    content = _read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold an object")
    return content


def _read_json(path: Path) -> Any:
    try:
        return read_json(path, MOST_VOCABULARY)
    except OSError as error:
        raise ValueError(f"{path}: cannot read the file: {error.strerror}") from None
