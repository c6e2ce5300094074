"""open_clip's cleaning of texts, in cases; on random texts beside `ftfy` in `parity`."""

import pytest

from vclip_jax.data.open_clip_text import clean


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("  a \t b\r\n c ", "a b c"),
        ("don’t “x”", 'don\'t "x"'),
        ("ＡＢＣ　ｶﾞ", "ABC ガ"),
        ("ﬁ ĳ", "fi ij"),
        ("AT&amp;T &ldquo;x&rdquo;", 'AT&T "x"'),
        ("<b>&amp;amp;</b>", "<b>&</b>"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x85a\x80", "…a€"),
        ("a\u0000b\ufeffc", "abc"),
        ("e\u0301", "é"),
        ("\ud83d", "\ufffd"),
    ],
)
def test_typography_becomes_plain(text, want):
    assert clean(text) == want
