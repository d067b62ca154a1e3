"""Which pictures are whole, without decoding them: what their files say of themselves is compared with what is there.

Decoding the 60,000 images of CIFAR-10 takes longer than all the rest of building the data. A PNG has a checksum for
each of its pieces. A JPEG has none, but decoders make grey of what is wrong among its pixels; what they refuse is a
broken header, or a file that ends too early or holds a second header. So one picture is decoded for each header that
occurs, of which a data set whose pictures one program wrote has a few, and of all others the bytes are looked at.
"""

from __future__ import annotations

import re
import struct
import zlib

__all__ = ["WholeImages"]

_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# Frames of one pass over the picture: baseline and extended; the scan; tables and comments before it (DHT, DQT, DRI,
# APP0 to APP15, COM).
_FRAMES, _SCAN = {0xC0, 0xC1}, 0xDA
_TABLES = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
# Within the scan, 0xFF is followed by 0, or begins a marker of a restart.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")
# Larger pictures are left to Pillow, which warns of them: they may be meant to fill the memory.
_MOST_PIXELS = 1 << 26
_MOST_HEADERS = 1 << 12  # that are remembered


class WholeImages:
    """Tells whole PNG and JPEG files from their bytes; knows the headers of the JPEGs that were decoded so far."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def has(self, content: bytes) -> bool:
        """Whether these bytes are certainly a whole picture; False says nothing: it has to be decoded."""
        if content.startswith(_PNG):
            return _is_whole_png(content)
        return _header(content) in self._known

    def decoded(self, content: bytes) -> None:
        """Remember a picture that was decoded."""
        header = _header(content)
        if header is not None and len(self._known) < _MOST_HEADERS:
            self._known.add(header)


def _is_whole_png(content: bytes) -> bool:
    if not content.endswith(_PNG_END) or len(content) < 45 or content[12:16] != b"IHDR":
        return False
    width, height = struct.unpack_from(">II", content, 16)
    if not 0 < width * height <= _MOST_PIXELS:
        return False
    place, last, has_pixels = 8, len(content) - 12, False
    while place < last:
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        if end + 4 > last:
            return False
        if zlib.crc32(memoryview(content)[place + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        has_pixels = has_pixels or content[place + 4 : place + 8] == b"IDAT"
        place = end + 4
    return has_pixels


def _header(content: bytes) -> bytes | None:
    """All of a whole JPEG that stands before its pixels, but for its size; None if these bytes are none."""
    if not content.startswith(_JPEG) or not content.endswith(_JPEG_END):
        return None
    place, frame = 2, 0
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker, end = content[place + 1], place + 2 + (content[place + 2] << 8 | content[place + 3])
        if marker == _SCAN:
            inside = frame and end < len(content) - 2 and not _MARKER.search(content, end, len(content) - 2)
            return content[2 : frame + 5] + content[frame + 9 : end] if inside else None
        if marker in _FRAMES and not frame:
            height, width = struct.unpack_from(">HH", content.ljust(place + 9), place + 5)
            if not 0 < width * height <= _MOST_PIXELS:
                return None
            frame = place
        elif marker not in _TABLES:
            return None
        place = end
    return None
