"""open_clip's cleaning of texts before its tokenizers: `ftfy`'s, and HTML's entities resolved."""

import html

import ftfy


def clean(text: str) -> str:
    """Mend wrongly decoded text ("Ã©" is "é"), make typography plain, resolve entities, and make
    white space single: `basic_clean` and `whitespace_clean` of open_clip and of OpenAI's CLIP."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
