"""open_clip's cleaning of texts before its tokenizers: `ftfy`, and HTML entities resolved."""

import html


def clean(text: str) -> str:
    """Repair wrongly decoded text ("Ã©" is "é"), and make typography and white space plain.

    HTML entities are resolved too. This is `basic_clean` and `whitespace_clean` of open_clip and of
    OpenAI's CLIP.
    """
    import ftfy  # imported late: a Chinese model never cleans a text

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
