"""What a server said, sorted: a caption, an error for good, something to ask again, or the end of the run.

The bytes are whatever a server, a proxy or an attacker sent: nothing here trusts their shape.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

import orjson

from curate.recaption.chat.text import plain

_MAX_TOKENS = 2**53
_AGAIN = frozenset({408, 409, 425, 429})
_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
_FILTERED = frozenset({"content_filter", "content_policy_violation", "moderation_blocked", "data_inspection_failed"})


class Outcome(Enum):
    TEXT = "text"  # the model answered
    ERROR = "error"  # this request's, for good
    AGAIN = "again"  # not answered: ask again
    LIMITED = "limited"  # asked too fast: ask again, and all others more slowly
    WRONG = "wrong"  # no request can pass: the run's settings are wrong
    SPENT = "spent"  # no request can pass until somebody has paid


@dataclass(frozen=True)
class Reply:
    """One answer of the server. `error` is a few words, the same for all of its sort; `said` the server's own words."""

    outcome: Outcome
    text: str = ""
    error: str = ""
    cut: bool = False  # whether it ended at the limit of tokens
    tokens_in: int = 0
    tokens_out: int = 0
    counted: bool = False  # whether the server counted tokens
    wait: float | None = None  # seconds the server asks to wait
    said: str = ""
    status: int = 0


def read_reply(status: int, headers: Any, body: bytes, max_bytes: int, now: datetime | None = None) -> Reply:
    """Sort an HTTP answer. `headers` is any mapping without regard to case; `body` as it came over the wire."""
    raw = _inflated(body, headers.get("Content-Encoding", ""), max_bytes)
    value = None if raw is None else _json(raw)
    if 200 <= status < 300:
        if raw is None:
            return Reply(Outcome.ERROR, error="the answer is too large or in an unknown encoding", status=status)
        return _success(value, raw, headers, now)
    return _failure(status, value, raw or b"", headers, now)


def _success(value: Any, raw: bytes, headers: Any, now: datetime | None) -> Reply:
    if not isinstance(value, dict):
        return Reply(Outcome.AGAIN, error="the answer is no JSON object", said=_words(None, raw)[0], status=200)
    if value.get("error") and not value.get("choices"):  # a gateway's way to say what went wrong behind it
        code = value["error"].get("code") if isinstance(value["error"], dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
        return _failure(status, value, b"", headers, now)
    tokens_in, tokens_out, counted = _usage(value.get("usage"))
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    finish = choice.get("finish_reason")
    text, error = _content(choice.get("message"))
    if finish in ("content_filter", "safety"):
        text, error = "", "stopped by the content filter"
    return Reply(
        Outcome.ERROR if error else Outcome.TEXT, text=text, error=error, cut=finish == "length",
        tokens_in=tokens_in, tokens_out=tokens_out, counted=counted, status=200,
    )  # fmt: skip


def _content(message: Any) -> tuple[str, str]:
    """The text of a message, or why there is none."""
    if not isinstance(message, dict):
        return "", "the answer holds no message"
    content = message.get("content")
    if isinstance(content, list):  # parts
        parts = (part.get("text") for part in content if isinstance(part, dict))
        content = "".join(part for part in parts if isinstance(part, str))
    if isinstance(content, str) and content.strip():
        return content, ""
    return "", "refused" if isinstance(message.get("refusal"), str) and message["refusal"] else "empty answer"


def _usage(usage: Any) -> tuple[int, int, bool]:
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    sound = [n if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _MAX_TOKENS else None for n in counts]
    return sound[0] or 0, sound[1] or 0, None not in sound


def _failure(status: int, value: Any, raw: bytes, headers: Any, now: datetime | None) -> Reply:
    said, codes = _words(value, raw)
    outcome, error = Outcome.ERROR, f"http {status}"
    if codes & _SPENT or status == 402:
        outcome = Outcome.SPENT
    elif codes & _FILTERED or (status in (400, 403) and _moderated(said)):
        error = "stopped by the content filter"
    elif status in (401, 403, 404, 405) or status < 400:
        outcome = Outcome.WRONG
    elif status == 429 or (status == 503 and "Retry-After" in headers):
        outcome = Outcome.LIMITED
    elif status in _AGAIN or status >= 500:
        outcome = Outcome.AGAIN
    return Reply(outcome, error=error, said=said, wait=retry_after(headers, now), status=status)


def _words(value: Any, raw: bytes) -> tuple[str, set[str]]:
    """The message and the codes of an error body, in the shapes that servers give it."""
    error = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(error, str):
        return plain(error)[:200], set()
    if not isinstance(error, dict):
        text = re.sub(r"<[^<>]{0,500}>", " ", raw[:2000].decode("utf-8", "replace"))
        return plain(text)[:200], set()
    message = next((error[name] for name in ("message", "detail", "error") if isinstance(error.get(name), str)), "")
    return plain(message)[:200], {error[name] for name in ("code", "type") if isinstance(error.get(name), str)}


def _moderated(said: str) -> bool:
    return bool(re.search(r"\b(moderation|flagged|content management policy|safety system)\b", said, re.IGNORECASE))


def retry_after(headers: Any, now: datetime | None = None) -> float | None:
    """Seconds that the server asks to wait: `Retry-After-Ms`, or `Retry-After` in seconds or as an HTTP date."""
    milliseconds = _number(headers.get("Retry-After-Ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After", "")
    seconds = _number(value)
    if seconds is not None or not value:
        return seconds
    try:
        date = parsedate_to_datetime(value[:100])
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


def _number(value: str) -> float | None:
    return float(value) if re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", value) else None


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:  # half an emoji, a byte that is no UTF-8, NaN: the caption was paid for, so it is read if it can be
        return json.loads(raw.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _inflated(body: bytes, encoding: str, max_bytes: int) -> bytes | None:
    """The body as it was before it was compressed; None if it is larger than the limit, or cannot be had."""
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return body if len(body) <= max_bytes else None
    if kind not in ("gzip", "deflate", "x-gzip"):
        return None
    try:
        plain_bytes = zlib.decompressobj(47).decompress(body, max_bytes + 1)  # gzip's or zlib's own header
    except zlib.error:
        return b""
    return plain_bytes if len(plain_bytes) <= max_bytes else None
