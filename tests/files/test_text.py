"""Text of an unknown encoding is read as what it is, or refused."""

import pytest

from vclip_jax import prompts
from vclip_jax.files.text import decode_text

CHINESE = "图片,标签\n1.jpg,黄斑裂孔\n2.jpg,黄斑前膜\n3.jpg,糖尿病视网膜病变\n"
TRADITIONAL = "影像,診斷\na.jpg,糖尿病視網膜病變\nb.jpg,正常\nc.jpg,青光眼\n"
JAPANESE = "画像,所見\n1.jpg,右眼に硬性白斑を認める。\n2.jpg,異常なし\n"
JAPANESE_WORDS = "画像,診断\na.jpg,糖尿病網膜症\nb.jpg,正常\nc.jpg,緑内障\n"
KOREAN = "영상,진단\na.jpg,당뇨망막병증\nb.jpg,정상\nc.jpg,녹내장\nd.jpg,황반변성\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image,label\na.jpg,é\n", "utf-8"),
        (JAPANESE, "utf-8-sig"),
        (KOREAN, "utf-16"),
        (CHINESE, "gbk"),
        (CHINESE, "gb18030"),
        (TRADITIONAL, "gbk"),
        ("image,note\na.jpg,\xa0x\n", "latin-1"),
    ],
)
def test_text_is_read(text, encoding):
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (TRADITIONAL, "big5"),
        (JAPANESE, "shift_jis"),
        (JAPANESE_WORDS, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (KOREAN, "cp949"),
        ("image,label\na.jpg,rétinopathie diabétique\n", "latin-1"),
    ],
)
def test_text_of_another_encoding_is_refused(text, encoding):
    with pytest.raises(ValueError, match="save it as UTF-8"):
        decode_text(text.encode(encoding))


def test_chinese_words_of_the_retina_are_read_in_gbk_one_by_one_and_together():
    words = {
        text
        for name in prompts.known()
        if name.startswith("zh")
        for texts in prompts.load(name).prompts
        for text in texts
    }
    for text in [*words, "\n".join(words)]:
        assert decode_text(text.encode("gbk")) == text
