"""Text on pages: encodings, character references, markup taken out of captions, white space folded."""

from __future__ import annotations

import codecs
import html as references
import re
from html.entities import html5

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

MAX_CAPTION = 4096  # characters; what is longer is cut
_FOLD = re.compile(r"[\s\x00-\x20\x7f\u200b\ufeff]+")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_NAMED = re.compile(r"&(?:#[0-9a-zA-Z]+;?|([A-Za-z][A-Za-z0-9]*)(;|(?![A-Za-z0-9=])))")
_MARKUP = re.compile(
    r"<!--.*?-->|<(script|style|template)\b.*?(?:</\1\s*>|$)|"
    r"</?([a-zA-Z][a-zA-Z0-9-]*)(?:[^>=]|=\s*(?:\"[^\"]*\"|'[^']*'|))*+(?:>|$)",
    re.DOTALL | re.IGNORECASE,
)
_INLINE_NAMES = """
a abbr acronym b bdi bdo big cite code del dfn em font i ins kbd label mark q s samp small span strike strong sub sup
time tt u var wbr
"""
INLINE = frozenset(_INLINE_NAMES.split())  # tags that do not separate words
# What Python calls by another name than browsers, or does not know: decoded as what is nearest.
_CODECS = {"x-user-defined": "latin-1", "iso-8859-8-i": "iso-8859-8", "x-mac-cyrillic": "mac_cyrillic"} | {
    "windows-874": "cp874",
    "macintosh": "mac_roman",
    "x-sjis": "cp932",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "gbk": "gb18030",
}


_NOT_ASCII = ("utf-16-le", "utf-16-be", "utf-16le", "utf-16be", "iso-2022-jp", "iso2022_jp")


def fold(text: str) -> str:
    """One line: white space and control characters become single spaces; cut at MAX_CAPTION characters."""
    if text.isascii() and text.isprintable() and "  " not in text and len(text) <= MAX_CAPTION:
        return text.strip()
    return _FOLD.sub(" ", text[: 4 * MAX_CAPTION]).strip()[:MAX_CAPTION].rstrip()


def attribute_text(value: str) -> str:
    """An attribute's value; references are resolved as in attributes, where `?a=1&copy=2` holds none."""
    return _NAMED.sub(_resolved, value) if "&" in value else value


class Decoder:
    """Decodes parts of a page. What the encoding is, is looked into when a part is not plain ASCII."""

    def __init__(self, html: bytes, charset: str | None) -> None:
        self.html = html
        self._charset = charset
        self._codec: str | None = None
        wide = html.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in html[:1024]
        if (wide or (not _is_utf8(charset) and b"\x1b" in html)) and self.codec in _NOT_ASCII:
            # Their bytes look like ASCII and are not.
            self.html = html.decode(self.codec, "replace").encode("utf-8", "replace")
            self._codec = "utf-8"

    @property
    def is_utf8(self) -> bool:
        """Whether what is not ASCII on the page is UTF-8; False where there is no such thing, too."""
        if self._codec is None and not _is_utf8(self._charset) and self.html.isascii():
            return False
        return self.codec == "utf-8"

    @property
    def codec(self) -> str:
        if self._codec is None:
            name = _encoding(self.html, self._charset).lower()
            name = _CODECS.get(name, name)
            try:
                codecs.lookup(name)
            except LookupError:
                name = "cp1252"
            self._codec = name
        return self._codec

    def decode(self, part: bytes) -> str:
        return part.decode("ascii") if part.isascii() else part.decode(self.codec, "replace")

    def text(self, part: bytes) -> str:
        """The text of a piece of markup, on one line: inline tags vanish, others separate words."""
        text = self.decode(part[: 64 * MAX_CAPTION])
        if "<" in text:
            text = _MARKUP.sub(_between_words, text)
        return fold(references.unescape(text) if "&" in text else text)


def _is_utf8(charset: str | None) -> bool:
    return charset is not None and charset.lower() in ("utf-8", "utf8")


def _between_words(markup: re.Match[str]) -> str:
    return "" if markup.group().startswith("<!--") or (markup.group(2) or "").lower() in INLINE else " "


def _encoding(html: bytes, charset: str | None) -> str:
    """The encoding as browsers find it: a byte order mark, then what the server said, then the page itself."""
    for mark, name in _BOMS:
        if html.startswith(mark):
            return name
    told = map_encoding_to_html5(charset, False) if charset else None
    return told or detect_encoding(html, html5_compatible=True, from_html_meta=True) or "utf-8"


def _resolved(reference: re.Match[str]) -> str:
    if reference.group(1) is None:
        return references.unescape(reference.group())
    return html5.get(reference.group(1) + reference.group(2), reference.group())
