"""What a model wrote, made a caption: one line without control characters, fences, quotes and preambles."""

from __future__ import annotations

import json
import re
import unicodedata

MAX_READ = 20_000  # characters of an answer that are looked at; a caption is far shorter
_ROUNDS = 6  # wrappers around a caption are few: `**Caption:** "..."` has three
# Characters that show nothing but change what a reader or a parser sees: directional overrides, tags, byte order marks.
_HIDDEN = re.compile("[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]")
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_SPECIAL = re.compile(r"<\|[\w ./-]{1,40}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_(?:turn|utterance)>|<eos>|<pad>")
_FENCE = re.compile(r"\A```[\w+-]*[ \t]*\n?(.*?)\n?```\Z", re.DOTALL)
_PREAMBLE = re.compile(
    r"\A(?:sure|certainly|of course|okay|ok)?[,.! ]{0,3}"
    r"(?:here(?:'s| is| are)\b[^:\n]{0,60}?\b(?:captions?|descriptions?|sentence|version|rewrite|alt text|answer)\b"
    r"[^:\n]{0,40}|(?:(?:new|short|rewritten|improved|image|possible|suggested) ){0,2}"
    r"(?:caption|description|alt text|rewrite|answer|output)(?: of the image)?)\s*:\s*(?=\S)",
    re.IGNORECASE,
)
_MARK = re.compile(r"\A(?:[-*•>]\s+|#{1,6}\s+|1[.)]\s+)(?=\S)")
_BOLD = re.compile(r"\A(\*\*|__)(.{1,60}?)\1\s*")
_PAIRS = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`", "„": "“"}
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’)]*(?=\s|\Z)|[。！？]")


def clean_caption(text: str, max_chars: int) -> str:
    """The caption in a model's answer, on one line and at most `max_chars` long; empty if there is none.

    Takes away what models put around a caption (thoughts, fences, a JSON object, `Caption:`, quotes, list marks) and
    every character that does not show. What is left is data: it may still say anything.
    """
    text = _SPECIAL.sub(" ", _THOUGHT.sub(" ", _shown(text[:MAX_READ]))).strip()
    for _ in range(_ROUNDS):
        bare = _unwrapped(text)
        if bare == text:
            break
        text = bare
    return shortened(plain(text), max_chars)


def plain(text: str) -> str:
    """The text on one line: whitespace folded, control characters and those that hide gone."""
    return " ".join(_shown(text).split())


def _shown(text: str) -> str:
    """The text without control characters, but for the ends of lines, and without those that hide."""
    if text.isascii() and text.isprintable():
        return text
    text = _HIDDEN.sub("", text)
    return "".join(" " if c not in "\n\r\t" and unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def shortened(text: str, max_chars: int) -> str:
    """At most `max_chars` characters, cut between words where there are any."""
    if len(text) <= max_chars:
        return text
    cut = text[:max_chars]
    at_word = cut.rpartition(" ")[0]
    return (at_word if len(at_word) > max_chars // 2 else cut).rstrip()


def whole_sentences(text: str) -> str:
    """The text up to the end of its last finished sentence; empty if none is finished."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else ""


def _unwrapped(text: str) -> str:
    """The text without its outermost wrapper, if it has one."""
    text = text.strip()
    fenced = _FENCE.match(text)
    if fenced:
        return fenced[1].strip()
    if text.startswith("{") and text.endswith("}"):
        return _only_string(text)
    bold = _BOLD.match(text)
    if bold:  # **Caption:** or a caption all in bold
        return f"{bold[2]} {text[bold.end() :]}".strip()
    for pattern in (_MARK, _PREAMBLE):
        if match := pattern.match(text):
            return text[match.end() :].strip()
    closing = _PAIRS.get(text[:1])
    if closing and len(text) > 2 and text.endswith(closing) and not _inside(text[1:-1], text[0], closing):
        return text[1:-1].strip()
    return text


def _inside(text: str, opening: str, closing: str) -> bool:
    """Whether a quote ends and another begins within: then the outer ones are no pair."""
    return opening in text or closing in text if opening != "'" else bool(re.search(r"(?<!\w)'|'(?!\w)", text))


def _only_string(text: str) -> str:
    """The string in a JSON object that holds one and nothing else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    strings = list(value.values()) if isinstance(value, dict) else []
    return strings[0] if len(strings) == 1 and isinstance(strings[0], str) else text
