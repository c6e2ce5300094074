"""How a model's tokenizer reads words: what its vocabulary lacks, and what its context cuts off.

A text of which nothing is known still has an embedding, and two such texts have the same: a class
asked with it gets a number that looks like any other. So texts are read here before they are
scored.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.prompts.sets import PromptSet

_SHOWN = 60
"""Characters of a text in a message."""


def check_prompts(prompts: PromptSet, tokenizer: Tokenizer, context_length: int) -> list[str]:
    """Read a prompt set as the model does.

    Args:
        prompts: what the model is to be asked.
        tokenizer: the model's.
        context_length: tokens of a row, start and end included.

    Returns:
        What people should know, a sentence each: tokens that the vocabulary lacks, prompts that are
        the same for that reason though their classes are not, prompts that are cut; empty where all
        is read.

    Raises:
        ValueError: one line: two classes are the same to the model, since every prompt of one reads
            as one of the other; two prompts of different classes are, since their tokens are or
            since they differ after the context's end alone; a prompt has no token.
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
            # Unknown words are all one token: what they add is their number, which says nothing.
            row = pieces[: context_length - 2]
            own = tuple(piece for piece in row if piece != tokenizer.unknown_id)
            known[name].add(own)
            other, before = seen.setdefault(own, (name, text))
            if other == name:
                continue
            why = (
                f"{prompts.name}: {_of(before, other)} and {_of(text, name)} are the same to this "
                f"model: {_why(before, text, tokenizer, context_length)}"
            )
            if len(own) == len(row) and len(own) == len(_row(before, tokenizer, context_length)):
                raise ValueError(why)
            notes.append(why)
    for (first, some), (second, others) in combinations(known.items(), 2):
        if some <= others or others <= some:
            a, b = (prompts.prompts[prompts.class_names.index(name)][0] for name in (first, second))
            raise ValueError(
                f"{prompts.name}: {_of(a, first)} and {_of(b, second)} are the same to this model: "
                f"{_why(a, b, tokenizer, context_length)}"
            )
    del notes[1:]  # the first says enough
    every = [text for own in prompts.prompts for text in own]
    share, worst = unknown_share(every, tokenizer)
    if share:
        notes.append(
            f"{prompts.name}: the model's vocabulary lacks {_percent(share)} of the prompts' "
            f"tokens, most in {_short(worst)}"
        )
    cut = _cut("prompts", every, tokenizer, context_length)
    return notes + [f"{prompts.name}: {note}" for note in cut]


def _cut(what: str, texts: Sequence[str], tokenizer: Tokenizer, context_length: int) -> list[str]:
    """A sentence where texts are longer than the context."""
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
    """The tokens of a text that are read."""
    return tokenizer.pieces(text)[: context_length - 2]


def unknown_share(texts: Iterable[str], tokenizer: Tokenizer) -> tuple[float, str]:
    """The share of the texts' tokens that the vocabulary lacks, and the text that has most of them
    for its length."""
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
    """Read captions to train on, or to score.

    Args:
        captions: some of the dataset's.
        tokenizer: the model's.
        most: the share of unknown tokens above which nothing can be learnt from them.
        remedy: what an error says is to be done.

    Returns:
        A sentence where there are unknown tokens at all.

    Raises:
        ValueError: one line: there are more than `most`.
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
    """Read texts that are to be embedded: a sentence where some tokens are unknown, and one where
    some texts are cut."""
    share, worst = unknown_share(texts, tokenizer)
    lacking = (
        f"the model's vocabulary lacks {_percent(share)} of the texts' tokens, most in "
        f"{_short(worst)}"
    )
    return ([lacking] if share else []) + _cut("texts", texts, tokenizer, context_length)


def _why(first: str, second: str, tokenizer: Tokenizer, context_length: int) -> str:
    """What makes two texts the same."""
    pieces = [tokenizer.pieces(text) for text in (first, second)]
    read = [_row(text, tokenizer, context_length) for text in (first, second)]
    lacking = [sum(piece == tokenizer.unknown_id for piece in own) for own in read]
    if any(lacking):
        return (
            f"its vocabulary lacks {lacking[0]} of {len(read[0])} and {lacking[1]} of "
            f"{len(read[1])} of their tokens; ask in the words of the captions that it was trained "
            "on (--prompts, --prompt)"
        )
    if pieces[0] != pieces[1]:
        return (
            f"they differ only after the {context_length - 2} tokens that it reads (its context "
            f"has {context_length}), they have {len(pieces[0])} and {len(pieces[1])}; shorten them"
        )
    return "their tokens are; ask each class something of its own"


def _of(text: str, name: str) -> str:
    return _short(text) + (f" (of the class {_short(name)})" if name != text else "")


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"
