"""The segments of a JPEG (ITU T.81, annex B): reading the header, and removing metadata."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_SCANS: Final = 100
"""A progressive photograph has about 10. Each scan goes through all pixels, whatever its length."""

# The next marker outside a scan's data; FF 00 and RST0 to RST7 are part of a scan's data.
_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_NO_MARKER: Final = frozenset((0x00, 0xFF, *range(0xD0, 0xD8)))

_SOI, _EOI, _SOS, _DQT, _DHT, _DAC, _DRI = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xCC, 0xDD
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_FRAMES: Final = (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA)
"""Baseline, extended, progressive, lossless; extended and progressive with arithmetic coding."""
_PROGRESSIVE: Final = (0xC2, 0xCA)
_ARITHMETIC: Final = (0xC9, 0xCA)
_LOSSLESS: Final = 0xC3
_JFIF: Final = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
"""A segment of version 1.1: square pixels, no thumbnail."""


Segment = tuple[int, int, int, int]
"""A marker, the position of its first FF, and the start and end of its parameters."""


class Header(NamedTuple):
    """The facts before the first scan."""

    app1: bool
    """True if there is EXIF or XMP, which may hold the camera's orientation."""
    several_scans: bool
    bits: int
    """Bits of a sample, 0 if no frame is found."""


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments after the start of the image; the last is its end, if there is one.

    Bytes between segments are skipped, as decoders do. The iteration stops at the end of `data`.
    """
    at = 2
    while True:
        begin, start = at, at + 2
        marker = data[at + 1] if start <= len(data) and data[at] == 0xFF else 0
        if marker in _NO_MARKER:
            match = _MARKER.search(data, at)
            if match is None:
                return
            begin, start = match.span()
            marker = data[start - 1]
            while begin > at and data[begin - 1] == 0xFF:
                begin -= 1  # FF bytes before a marker are filling
        if marker in (_EOI, _SOI, 0x01):  # without parameters
            yield marker, begin, start, start
            at = start
            if marker == _EOI:
                return
            continue
        if start + 2 > len(data):
            return
        at = start + max(2, data[start] << 8 | data[start + 1])
        if at > len(data):
            return
        yield marker, begin, start + 2, at


def read_header(data: bytes) -> Header:
    """Read a JPEG's header without decoding it, in microseconds: every photograph pays for it."""
    app1, several, bits, components, at = False, False, 0, 0, 2
    try:
        while True:
            marker = data[at + 1]
            if data[at] != 0xFF or marker in _NO_MARKER or marker == _SOI:
                # Skip bytes between segments, and FF before a marker.
                at = data.find(b"\xff", at + 1)
                if at < 0:
                    break
                continue
            if marker == _APP1:
                app1 = True
            elif marker in _FRAMES:
                bits, components = data[at + 4], data[at + 9]
                several = marker in _PROGRESSIVE
            elif marker == _SOS:
                several = several or data[at + 4] < components
                break
            elif marker == _EOI:
                break
            at += 2 + max(2, data[at + 2] << 8 | data[at + 3])
    except IndexError:
        pass  # the file ends early, which the decoder will report
    return Header(app1, several, bits)


def has_many_scans(data: bytes) -> bool:
    """Return whether a JPEG has more than `MAX_SCANS`."""
    # A cheap upper bound: metadata may hold the two bytes, a scan's data cannot.
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return False
    return sum(marker == _SOS for marker, *_ in segments(data)) > MAX_SCANS


def strip(data: bytes) -> bytes:
    """Return a JPEG with nothing but the compressed picture, which is copied unchanged.

    The kept parts are written anew from their fields: the frame, the scans, the tables that a scan
    uses, in front of that scan, restart intervals, and the colour coding of JFIF's and Adobe's
    segments. Everything else is removed: other application segments and comments anywhere, unused
    tables, thumbnails, surplus bytes within segments, between them, and after the end. Two unused
    things remain, since removing them would mean coding the picture anew: symbols of a table that
    no pixel needs, and up to five bytes at the end of a scan, which decoders ignore.

    Raises:
        ValueError, IndexError: the segments do not make a JPEG.
    """
    kept = [b"\xff\xd8"]
    tables: dict[tuple[int, int], bytes] = {}  # defined and not yet written
    frame = jfif = adobe = b""
    kind = scans = 0
    scan_from: int | None = None
    seen: set[int] = set()  # components whose quantisation table is written
    for marker, begin, start, end in segments(data):
        if scan_from is not None:
            kept.append(data[scan_from:begin])
            scan_from = None
        payload = data[start:end]
        if marker == _EOI:
            if not scans:
                raise ValueError("the JPEG has no scan")
            return b"".join([*kept, b"\xff\xd9"])
        if marker == _APP0 and payload[:5] == b"JFIF\0" and len(payload) >= 14:
            jfif = _JFIF
        elif marker == _APP14 and payload[:5] == b"Adobe" and len(payload) >= 12:
            adobe = _segment(_APP14, b"Adobe\0\x64\0\0\0\0" + payload[11:12])
        elif marker == _DQT:
            tables.update(_quantisation(payload))
        elif marker == _DHT:
            tables.update(_huffman(payload))
        elif marker == _DAC:
            tables.update(
                {(_DAC, payload[i]): payload[i : i + 2] for i in range(0, len(payload) - 1, 2)}
            )
        elif marker == _DRI:
            tables[_DRI, 0] = payload[:2]
        elif marker in _FRAMES:
            if frame or len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
                raise ValueError("the JPEG's frame is damaged")
            kind, frame = marker, payload
        elif marker == _SOS:
            if not frame or not payload or len(payload) != 4 + 2 * payload[0]:
                raise ValueError("the JPEG's scan is damaged")
            if not scans:
                kept += [jfif, adobe, _segment(kind, frame)]
            scans += 1
            needed = _needed(kind, frame, payload, seen)
            kept += [_segment(key[0], tables.pop(key)) for key in needed if key in tables]
            kept.append(_segment(_SOS, payload))
            scan_from = end
        elif 0xC0 <= marker <= 0xCF and marker != 0xC8:
            raise ValueError(f"a JPEG of a kind that is not read (SOF{marker - 0xC0})")
    raise ValueError("the JPEG has no end marker")


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def _quantisation(payload: bytes) -> dict[tuple[int, int], bytes]:
    tables, at = {}, 0
    while at < len(payload):
        end = at + 1 + (128 if payload[at] >> 4 else 64)
        tables[_DQT, payload[at] & 15] = payload[at:end]
        at = end
    return tables


def _huffman(payload: bytes) -> dict[tuple[int, int], bytes]:
    tables, at = {}, 0
    while at < len(payload):
        end = at + 17 + sum(payload[at + 1 : at + 17])
        tables[_DHT, payload[at]] = payload[at:end]
        at = end
    return tables


def _needed(kind: int, frame: bytes, scan: bytes, seen: set[int]) -> list[tuple[int, int]]:
    """List the tables that a scan uses; `seen` grows by the scan's components.

    A component's quantisation is that of its first scan. A scan of a progressive JPEG uses Huffman
    tables either of DC (none if it refines) or of AC.
    """
    quantisation = {frame[i]: frame[i + 2] for i in range(6, len(frame), 3)}
    first, refines = scan[-3], scan[-1] >> 4
    needed: list[tuple[int, int]] = [(_DRI, 0)]
    for at in range(1, 1 + 2 * scan[0], 2):
        component, dc, ac = scan[at], scan[at + 1] >> 4, scan[at + 1] & 15
        if component not in seen and component in quantisation:
            needed.append((_DQT, quantisation[component]))
        seen.add(component)
        uses_dc = kind == _LOSSLESS or not first
        uses_ac = kind != _LOSSLESS and (first or kind not in _PROGRESSIVE)
        if kind in _ARITHMETIC:
            needed += [(_DAC, dc)] * uses_dc + [(_DAC, 16 + ac)] * bool(uses_ac)
        else:
            needed += [(_DHT, dc)] * (uses_dc and not refines) + [(_DHT, 16 + ac)] * bool(uses_ac)
    return needed
