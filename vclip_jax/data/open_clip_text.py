"""open_clip's cleaning of texts before its tokenizers: `ftfy`'s, and HTML's entities resolved.

The repair of wrongly decoded text ("Ã©" for "é"), which `ftfy` also does, is left out.
"""

import html
import re
import unicodedata

_LIGATURES = {
    **{letter: unicodedata.normalize("NFKC", letter) for letter in "ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌﬀﬁﬂﬃﬄﬆ"},
    "ﬅ": "ſt",
}
_WIDE = {
    letter: unicodedata.normalize("NFKC", letter)
    for letter in map(chr, range(0xFF01, 0xFFF0))
    if unicodedata.normalize("NFKC", letter) != letter
}
# Latin-1's unused codes are taken for those of Windows.
_WINDOWS = {
    chr(code): character
    for code in range(0x80, 0xA0)
    if (character := bytes([code]).decode("cp1252", "ignore"))
}
_QUOTES = {**dict.fromkeys("ʼ‘’‚‛", "'"), **dict.fromkeys("“”„‟", '"')}
_LINE_ENDS = dict.fromkeys("\r\u2028\u2029", "\n")
_CONTROLS = dict.fromkeys(
    [*map(chr, range(0x09)), "\x0b", *map(chr, range(0x0E, 0x20)), "\x7f",
     *map(chr, range(0x206A, 0x2070)), "\ufeff", *map(chr, range(0xFFF9, 0xFFFD))]
)  # fmt: skip
_TERMINAL = re.compile("\033\\[[0-9;]*[A-Za-z]")
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_REPLACED = (
    str.maketrans(_WINDOWS),
    str.maketrans(_LIGATURES),
    str.maketrans({"\u3000": " ", **_WIDE}),
    str.maketrans(_QUOTES),
)
_DROPPED = str.maketrans(_CONTROLS)
_ENDED = str.maketrans(_LINE_ENDS)


def clean(text: str) -> str:
    """open_clip's cleaning: typography made plain, entities resolved, white space single."""
    fixed = _fixed(text, entities="<" not in text)
    return " ".join(html.unescape(html.unescape(fixed)).split())


def _fixed(text: str, *, entities: bool) -> str:
    """What `ftfy` 6 makes of texts that were decoded as they should be."""
    while True:
        before = text
        if entities:
            text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
        for table in _REPLACED:
            text = text.translate(table)
        text = text.replace("\r\n", "\n").translate(_ENDED)
        # Halves of characters beyond the basic plane are put together, single ones are lost.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = _TERMINAL.sub("", text).translate(_DROPPED)
        text = unicodedata.normalize("NFC", text)
        if text == before:
            return text
