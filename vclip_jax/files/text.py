"""Text of files with an unknown encoding."""

import re


def decode_text(data: bytes) -> str:
    """Decode UTF-8, UTF-16 with a byte order mark, or GB18030 (a superset of GBK and GB2312).

    ASCII with single bytes A0 is read, too: A0 is the non-breaking space in all Western encodings.

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
        if text and not re.search("[\ue000-\uf8ff]", text):
            return text
    raise ValueError("the text is neither UTF-8 nor GB18030: save it as UTF-8")
