"""A check that an untrusted `tokenizer.json` is safe to use.

The `tokenizers` package builds any part that the file names, and some parts never finish, take all
memory or end the process.
"""

import re
from typing import Any, Final

PARTS: Final = frozenset(
    {
        "BPE",
        "WordPiece",
        "WordLevel",
        "Sequence",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Lowercase",
        "Strip",
        "StripAccents",
        "Replace",
        "BertNormalizer",
        "Split",
        "ByteLevel",
        "BertPreTokenizer",
        "Whitespace",
        "WhitespaceSplit",
        "BertProcessing",
        "RobertaProcessing",
        "TemplateProcessing",
        "BPEDecoder",
    }
)
"""The parts of the tokenizers of CLIP and BERT."""
LONGEST_WORD: Final = 1000
"""Characters of a word: the time to find its pieces grows with the square of this."""

_LETTERS: Final = r"(?:[^\\\[\](){}.*+?|^$]|\\[|.-])+"
_CLASS: Final = (
    r"(?: \?)?(?:\[\^?(?:\\[sdwSDWrn]|\\[pP]\{\w{1,20}\}|[^\\\[\]])+\]|\\[sdw]|\\p\{\w{1,20}\})\+?"
)
_LINEAR: Final = re.compile(rf"(?:\(\?i\))?(?:{_LETTERS}|{_CLASS})(?:\|(?:{_LETTERS}|{_CLASS}))*")
"""Regular expressions that take a time in proportion to the text: words, or runs of one class of
characters, with `|` between them.
"""


def check(description: Any, name: str) -> None:
    """Check the content of a `tokenizer.json`.

    Raises:
        ValueError: one line: the content is no object, numbers tokens beyond their count or two
            tokens alike, or has a part that is not in `PARTS`, a regular expression that is not
            plain, words longer than `LONGEST_WORD`, replacements that make texts longer, or random
            draws.
    """
    if not isinstance(description, dict):
        raise ValueError(f"{name} is not a tokenizer's description: it is not an object")
    model = description.get("model")
    if not isinstance(model, dict):
        raise ValueError(f"{name} is not a tokenizer's description: it has no model")
    longest = model.get("max_input_chars_per_word", 0)
    if type(longest) is not int or not 0 <= longest <= LONGEST_WORD:
        raise ValueError(f"{name}: max_input_chars_per_word is above {LONGEST_WORD}")
    if model.get("dropout"):
        raise ValueError(f"{name}: a dropout cuts the same text in ways that vary")
    check_numbers(model.get("vocab"), description.get("added_tokens") or [], name)
    parts = [description.get(key) for key in ("normalizer", "pre_tokenizer", "post_processor")]
    parts += [description.get("decoder"), {"type": model.get("type", "BPE")}]
    for part in parts:
        _check_part(part, name)


def check_numbers(vocabulary: Any, added: Any, name: str) -> None:
    """Check that each token has a number of its own, below the count of tokens.

    The package allocates room for the highest number.

    Raises:
        ValueError: one line: a number is too high, or another token's.
    """
    if not isinstance(vocabulary, dict) or not isinstance(added, list):
        raise ValueError(f"{name} is not a tokenizer's description: it has no vocabulary")
    more = [(one.get("content"), one.get("id")) for one in added if isinstance(one, dict)]
    numbered = [*vocabulary.items(), *more]  # special tokens are in both, as a rule
    tokens: dict[int, Any] = {}
    for token, number in numbered:
        if type(number) is not int or not 0 <= number < len(numbered):
            raise ValueError(
                f"{name} has a token with the number {str(number)[:50]}, but only {len(numbered)} "
                "tokens"
            )
        if tokens.setdefault(number, token) != token:
            raise ValueError(
                f"{name} has two tokens with the number {number}, {str(tokens[number])[:50]!r} and "
                f"{str(token)[:50]!r}"
            )


def _check_part(part: Any, name: str) -> None:
    if isinstance(part, list):
        for item in part:
            _check_part(item, name)
    if not isinstance(part, dict):
        return
    kind = part.get("type")
    if isinstance(kind, str) and kind not in PARTS:
        raise ValueError(f"{name} has the part {kind[:50]!r}, which CLIP and BERT do not need")
    if kind == "Replace" and len(str(part.get("content", ""))) > 1:
        raise ValueError(f"{name} replaces characters by several, so that a text may grow")
    if kind == "Replace" and part.get("pattern") in ({"String": ""}, {"Regex": ""}):
        raise ValueError(f"{name} replaces nothing by something, so that a text grows")
    expression = part.get("Regex")
    if isinstance(expression, str) and not (
        len(expression) <= LONGEST_WORD and _LINEAR.fullmatch(expression)
    ):
        raise ValueError(
            f"{name} has the regular expression {expression[:60]!r}, which is not of the plain "
            "kind that CLIP has: it may take for ever on a text"
        )
    for item in part.values():
        _check_part(item, name)
