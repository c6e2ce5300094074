"""The parts that all tokenizers share."""

import os
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

CONTEXT_LENGTH: Final = 52
"""[CLS] + at most 50 pieces + [SEP] (Chinese-CLIP)."""


class Tokenizer(Protocol):
    """Turns texts into rows of token ids; immutable and picklable."""

    file_name: str
    """The name of the tokenizer's file in a workdir or a portable folder."""
    unknown_id: int | None
    """The token of a word that the vocabulary lacks; None if every word can be spelt."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""

    def pieces(self, text: str) -> list[int]:
        """Return all token ids of a text, without start and end; `unknown_id` for unknown words."""

    def encode(self, texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> np.ndarray:
        """Return the token ids of texts, int32 `[len(texts), context_length]`; see `rows`."""

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the tokens of one row `[context_length]` for display.

        They are spaced, without start, end and padding.
        """

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file from which the tokenizer can be loaded."""


def rows(
    texts: Sequence[str],
    context_length: int,
    pieces: Callable[[str], list[int]],
    *,
    start: int,
    end: int,
    pad: int,
) -> np.ndarray:
    """Return token ids: `start`, the text's first pieces, `end`, then `pad`.

    Args:
        texts: any strings, also empty ones.
        context_length: length of a row, at least 2; longer texts are cut, the end stays.
        pieces: a function that returns all token ids of a text, without start and end.
        start: token id.
        end: token id.
        pad: token id.

    Returns:
        int32 `[len(texts), context_length]`.

    Raises:
        ValueError: `context_length` is below 2.
        TypeError: a single string was passed, which would be read character by character.
    """
    if isinstance(texts, str):
        raise TypeError("encode takes a sequence of texts, not one string: use [text]")
    if context_length < 2:
        raise ValueError(f"context_length must be at least 2, got {context_length}")
    ids = np.full((len(texts), context_length), pad, np.int32)
    for row, text in zip(ids, texts, strict=True):
        tokens = pieces(text)[: context_length - 2]
        row[: len(tokens) + 2] = [start, *tokens, end]
    return ids


def characters(text: str) -> str:
    """Return the text with U+FFFD for unpaired surrogates, which no tokenizer takes.

    ftfy, which cleans for CLIP, does the same. BERT's tokenizers drop both.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
