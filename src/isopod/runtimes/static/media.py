"""What a file is, by its name: content type, whether compression pays, whether the name holds a
hash of what is in it. A table of our own: the machine's would differ from node to node."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_TEXT = {
    ".html": "text/html",
    ".htm": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".cjs": "text/javascript",
    ".txt": "text/plain",
    ".text": "text/plain",
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".ics": "text/calendar",
    ".vtt": "text/vtt",
    ".xml": "application/xml",
    ".xsl": "application/xml",
    ".rss": "application/rss+xml",
    ".atom": "application/atom+xml",
    ".xhtml": "application/xhtml+xml",
    ".svg": "image/svg+xml",
}
_COMPRESSIBLE = {
    ".json": "application/json",
    ".map": "application/json",
    ".geojson": "application/geo+json",
    ".jsonld": "application/ld+json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".ttf": "font/ttf",
    ".otf": "font/otf",
    ".eot": "application/vnd.ms-fontobject",
    ".ico": "image/x-icon",
    ".bmp": "image/bmp",
    ".rtf": "application/rtf",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
}
_OTHER = {
    ".avif": "image/avif",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".apng": "image/apng",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".ogv": "video/ogg",
    ".webm": "video/webm",
    ".mov": "video/quicktime",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".pdf": "application/pdf",
    ".epub": "application/epub+zip",
    ".zip": "application/zip",
    ".gz": "application/gzip",
    ".br": "application/octet-stream",
    ".zst": "application/zstd",
    ".tar": "application/x-tar",
    ".7z": "application/x-7z-compressed",
}
_TYPES = {
    **{suffix: f"{kind}; charset=utf-8" for suffix, kind in _TEXT.items()},
    **_COMPRESSIBLE,
    **_OTHER,
}
_UNKNOWN = "application/octet-stream"
# Tools that put a hash into every name below these.
_HASHED_FOLDERS = ("_astro/", "_next/static/", "_app/immutable/", "_nuxt/")
_HEX = re.compile(r"[0-9a-f]{8,64}")
_WORD = re.compile(r"[0-9A-Za-z_]{8,32}")


def content_type(path: str) -> str:
    name = PurePosixPath(path).name.lower()
    # What validators of app links ask for has no suffix.
    if path in (".well-known/apple-app-site-association", "apple-app-site-association"):
        return "application/json"
    return _TYPES.get(PurePosixPath(name).suffix, _UNKNOWN)


def is_compressible(path: str) -> bool:
    suffix = PurePosixPath(path.lower()).suffix
    return suffix in _TEXT or suffix in _COMPRESSIBLE


def is_hashed(path: str) -> bool:
    """Whether the name changes whenever the file does: then it may be kept for ever.

    A part of the name between "." or "-", and never the first, is a hash when it is 8 or more hex
    digits with a letter and a digit among them, or 8 or more letters and digits with a small
    letter, a capital and a digit (main.3f2a1b9c.js, index-BfF3a2x1.css). "20240101" is a date, and
    no word of a language has a digit.
    """
    if path.startswith(_HASHED_FOLDERS):
        return True
    first, *parts = re.split(r"[.-]", PurePosixPath(path).name)
    return bool(first) and any(_looks_hashed(part) for part in parts[:-1])


def _looks_hashed(part: str) -> bool:
    digit = any(letter.isdigit() for letter in part)
    lower = any(letter.islower() for letter in part)
    upper = any(letter.isupper() for letter in part)
    if _HEX.fullmatch(part):
        return digit and lower
    return bool(_WORD.fullmatch(part)) and digit and lower and upper
