"""A check of how a model's tokenizer reads texts: unknown words, and texts longer than the context.

A text of unknown words still has an embedding, and two such texts have the same one: their classes
get numbers that look like any others. So texts are checked here before they are scored.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.prompts.sets import PromptSet

_SHOWN = 60
"""Characters of a text that a message shows."""


def check_prompts(prompts: PromptSet, tokenizer: Tokenizer, context_length: int) -> list[str]:
    """Check a prompt set against a model's tokenizer and context.

    Args:
        prompts: the prompts of the model's classes.
        tokenizer: the model's tokenizer.
        context_length: tokens of a row, start and end included.

    Returns:
        Notes for the user, a sentence each, empty if there are none: tokens that the vocabulary
        lacks, prompts of different classes that are the same to the model because of unknown words,
        prompts that are cut.

    Raises:
        ValueError: one line: two classes are the same to the model, since every prompt of one has
            the same tokens as one of the other; two prompts of different classes have the same
            tokens, or differ only after the end of the context; a prompt has no token; every token
            of a class's prompts is unknown.
    """
    notes = []
    seen: dict[tuple[int, ...], tuple[str, str]] = {}
    known: dict[str, set[tuple[int, ...]]] = {}
    for name, texts in zip(prompts.class_names, prompts.prompts, strict=True):
        known[name] = set()
        for text in texts:
            pieces = tokenizer.pieces(text)
            if not pieces:
                raise ValueError(
                    f"{prompts.name}: the model reads nothing in {_of(text, name)}: give it words"
                )
            # Unknown words are all the same token: only their count differs, which says nothing.
            row = pieces[: context_length - 2]
            read = tuple(piece for piece in row if piece != tokenizer.unknown_id)
            known[name].add(read)
            other, before = seen.setdefault(read, (name, text))
            if other == name:
                continue
            why = (
                f"{prompts.name}: {_of(before, other)} and {_of(text, name)} are the same to this "
                f"model: {_why(before, text, tokenizer, context_length)}"
            )
            if len(read) == len(row) and len(read) == len(_row(before, tokenizer, context_length)):
                raise ValueError(why)
            notes.append(why)
    for (first, rows), (second, other_rows) in combinations(known.items(), 2):
        if rows <= other_rows or other_rows <= rows:
            a, b = (prompts.prompts[prompts.class_names.index(name)][0] for name in (first, second))
            raise ValueError(
                f"{prompts.name}: {_of(a, first)} and {_of(b, second)} are the same to this model: "
                f"{_why(a, b, tokenizer, context_length)}"
            )
    for name, rows in known.items():
        if rows == {()}:
            raise ValueError(
                f"{prompts.name}: the model knows no word of "
                f"{_of(prompts.prompts[prompts.class_names.index(name)][0], name)}: give it other "
                "words, in the language of the model's captions"
            )
    del notes[1:]  # one example is enough
    every = [text for texts in prompts.prompts for text in texts]
    share, worst = unknown_share(every, tokenizer)
    if share:
        notes.append(
            f"{prompts.name}: the model's vocabulary lacks {_percent(share)} of the prompts' "
            f"tokens, most in {_short(worst)}"
        )
    cut = _cut("prompts", every, tokenizer, context_length)
    return notes + [f"{prompts.name}: {note}" for note in cut]


def _cut(what: str, texts: Sequence[str], tokenizer: Tokenizer, context_length: int) -> list[str]:
    """Return a sentence if some texts are longer than the context, else no sentence."""
    lengths = [len(tokenizer.pieces(text)) for text in texts]
    cut = sum(length > context_length - 2 for length in lengths)
    if not cut:
        return []
    longest = int(np.argmax(lengths))
    return [
        f"{cut} of {len(texts)} {what} are cut after {context_length - 2} tokens; "
        f"{_short(texts[longest])} has {lengths[longest]}"
    ]


def _row(text: str, tokenizer: Tokenizer, context_length: int) -> list[int]:
    """Return the tokens of a text that fit into the context."""
    return tokenizer.pieces(text)[: context_length - 2]


def unknown_share(texts: Iterable[str], tokenizer: Tokenizer) -> tuple[float, str]:
    """Return the share of the texts' tokens that the vocabulary lacks, and the text with the most.

    The text is the one with the largest share of unknown tokens, "" if there are none.
    """
    total, unknown, most, worst = 0, 0, 0.0, ""
    for text in texts:
        pieces = tokenizer.pieces(text)
        lacking = sum(piece == tokenizer.unknown_id for piece in pieces)
        total, unknown = total + len(pieces), unknown + lacking
        if lacking and lacking / len(pieces) > most:
            most, worst = lacking / len(pieces), text
    return unknown / max(1, total), worst


def check_captions(
    captions: Sequence[str],
    tokenizer: Tokenizer,
    most: float,
    remedy: str = "set config.tokenizer.vocab to a vocabulary of the captions' language",
) -> list[str]:
    """Check captions to train on, or to score.

    Args:
        captions: a sample of the dataset's captions.
        tokenizer: the model's tokenizer.
        most: the largest accepted share of unknown tokens.
        remedy: the advice at the end of the error message.

    Returns:
        A sentence if there are unknown tokens, else nothing.

    Raises:
        ValueError: one line: the share is larger than `most`.
    """
    share, worst = unknown_share(captions, tokenizer)
    if share > most:
        raise ValueError(
            f"the vocabulary lacks {_percent(share)} of the captions' tokens, more than "
            f"config.tokenizer.max_unknown={most:g}, most in {_short(worst)}: {remedy}"
        )
    if not share:
        return []
    return [
        f"captions: the vocabulary lacks {_percent(share)} of their tokens, most in {_short(worst)}"
    ]


def check_texts(texts: Sequence[str], tokenizer: Tokenizer, context_length: int) -> list[str]:
    """Check texts to embed: return a sentence if tokens are unknown, and one if texts are cut."""
    share, worst = unknown_share(texts, tokenizer)
    lacking = (
        f"the model's vocabulary lacks {_percent(share)} of the texts' tokens, most in "
        f"{_short(worst)}"
    )
    return ([lacking] if share else []) + _cut("texts", texts, tokenizer, context_length)


def _why(first: str, second: str, tokenizer: Tokenizer, context_length: int) -> str:
    """Explain why two texts are the same to the model."""
    pieces = [tokenizer.pieces(text) for text in (first, second)]
    read = [_row(text, tokenizer, context_length) for text in (first, second)]
    lacking = [sum(piece == tokenizer.unknown_id for piece in row) for row in read]
    if any(lacking):
        return (
            f"its vocabulary lacks {lacking[0]} of {len(read[0])} and {lacking[1]} of "
            f"{len(read[1])} of their tokens; use the words of the captions that it was trained on "
            "(--prompts, --prompt)"
        )
    if pieces[0] != pieces[1]:
        return (
            f"they differ only after the {context_length - 2} tokens that it reads (its context "
            f"has {context_length}), they have {len(pieces[0])} and {len(pieces[1])}; shorten them"
        )
    return "their tokens are the same; give each class different words"


def _of(text: str, name: str) -> str:
    return _short(text) + (f" (of the class {_short(name)})" if name != text else "")


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"
