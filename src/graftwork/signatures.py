"""What the first bytes of a file look like, for messages about files that are not what was expected."""

_MARKS = (
    (0, b"\xff\xd8\xff", "the beginning of a JPEG"),
    (0, b"\x89PNG", "the beginning of a PNG"),
    (0, b"GIF8", "the beginning of a GIF"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive or an office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (8, b"WAVE", "a WAV sound"),
    (8, b"AIF", "an AIFF sound"),
    (0, b"RIFF", "a RIFF file (sound or video)"),
    (0, b"fLaC", "a FLAC sound"),
    (0, b"OggS", "an OGG sound"),
    (0, b"ID3", "an MP3 sound"),
    (0, b"\xff\xfb", "an MP3 sound"),
    (0, b"\xff\xf3", "an MP3 sound"),
    (0, b"\xff\xf2", "an MP3 sound"),
    (0, b"#!AMR", "a phone's AMR recording; convert it to WAV or FLAC"),
    (0, b"\x30\x26\xb2\x75", "a WMA recording or video; convert it to WAV or FLAC"),
    (4, b"ftypM4A", "an M4A recording; convert it to WAV or FLAC"),
    (4, b"ftyphei", "a HEIC photo; convert it to JPEG"),
    (4, b"ftypmif1", "a HEIC photo; convert it to JPEG"),
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"%!PS", "a PostScript drawing"),
)


def looks_like(content: bytes) -> str:
    """What a file that begins with `content` (512 bytes are looked at) seems to be, in a few words."""
    head = content[:512]
    if not any(head):
        return "zero bytes"
    for offset, mark, name in _MARKS:
        if head[offset:].startswith(mark):
            return name
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if b"<svg" in text:
        return "an SVG drawing; convert it to PNG"
    if not any(byte < 9 for byte in head):
        return "text"
    return "no known format"
