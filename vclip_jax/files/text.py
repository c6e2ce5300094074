"""Text of files with an unknown encoding."""

import re
from collections import Counter
from typing import Final

_HANGUL: Final = frozenset(range(0xA1, 0xC9))
"""The first bytes of punctuation and hangul in EUC-KR."""
_ENOUGH: Final = 14
"""Different characters that tell EUC-KR; by chance one Chinese text in 1,000 has the sign."""


def decode_text(data: bytes) -> str:
    """Decode UTF-8, UTF-16 with a byte order mark, or GB18030 (a superset of GBK and GB2312).

    ASCII with single bytes A0 is read, too: A0 is the non-breaking space in all Western encodings.
    Japanese, Korean and traditional Chinese encodings are refused if the bytes tell them.

    Raises:
        ValueError: one line: the text has none of these encodings.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    # Latin-1 letters are single bytes between ASCII ones, Chinese characters are pairs of bytes.
    runs = re.findall(rb"[\x80-\xff]+", data)
    if set(runs) == {b"\xa0"}:
        return data.decode("latin-1")
    if 2 * sum(len(run) % 2 for run in runs) <= len(runs):
        try:
            text = data.decode("gb18030")
        except UnicodeDecodeError:
            text = ""
        # Private-use characters are a sign of another encoding, such as Big5.
        if text and not re.search("[\ue000-\uf8ff]", text) and not _is_of_a_neighbour(data, text):
            return text
    raise ValueError("the text is neither UTF-8 nor GB18030: save it as UTF-8")


def _is_of_a_neighbour(data: bytes, read: str) -> bool:
    """Return True if bytes that GB18030 can read (as `read`) are rather Japanese or Korean.

    - EUC-JP: there are kana, which have the same bytes in both encodings.
    - Shift-JIS: few characters are of GB 2312, and the Shift-JIS reading has few half-width kana,
      of which that of Chinese text is full.
    - EUC-KR: all first bytes are those of hangul, where GB 2312 has the first half of its
      characters.
    """
    marks = Counter(re.findall("[^\0-\x7f]", read))
    if 10 * sum(count for mark, count in marks.items() if _is_kana(mark)) > marks.total():
        return True
    codes = {mark: code for mark in marks if len(code := mark.encode("gb2312", "ignore")) == 2}
    if 2 * sum(marks[mark] for mark in codes) < marks.total():
        narrow = re.findall("[\uff61-\uff9f]", data.decode("cp932", "replace"))
        return 4 * len(narrow) < marks.total()
    return len(codes) == len(marks) >= _ENOUGH and {code[0] for code in codes.values()} <= _HANGUL


def _is_kana(mark: str) -> bool:
    return "\u3041" <= mark <= "\u3096" or "\u30a1" <= mark <= "\u30fa"
