"""open_clip's cleaning of texts, in cases."""

import pytest

from vclip_jax.data.text.open_clip_cleaning import clean


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


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("drusen â‰¥ 63 Âµm", "drusen ≥ 63 µm"),
        ("Ã©dÃ¨me maculaire", "édème maculaire"),
        ("cup-to-disc ratio â€œ0.8â€\x9d", 'cup-to-disc ratio "0.8"'),
        ("BruchÃ¢â‚¬â„¢s membrane", "Bruch's membrane"),
    ],
)
def test_text_that_was_decoded_wrongly_is_mended(text, want):
    assert clean(text) == want


@pytest.mark.parametrize("text", ["édème ≥ 63 µm", "糖尿病视网膜病变", "Sjögren's", "naïve ½"])
def test_text_that_was_decoded_rightly_stays(text):
    assert clean(text) == text
