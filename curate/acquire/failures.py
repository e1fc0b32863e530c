"""Why an image could not be had: one word of `REASONS` at the start of every error text, and what may help later.

img2dataset keeps of an error only its text, in the shard's table; so the text says all: "reason: detail".
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
import zlib
from email.utils import parsedate_to_datetime

from curate.acquire.addresses import RefusedAddress, never_resolves

REASONS = (
    "dns",  # the name does not resolve
    "connect",  # no connection, or it was closed before an answer
    "timeout",
    "tls",
    "cut_off",  # the body ended before it was whole
    "http_4xx",
    "http_5xx",
    "protocol",  # no HTTP, or an answer that is neither an image nor an error
    "bad_url",
    "bad_redirect",  # to what is no http or https address
    "too_many_redirects",
    "refused_address",
    "robots",  # its host's robots.txt asks to leave it alone
    "disallowed",  # the server's headers forbid the use
    "empty",
    "too_large",  # bytes
    "not_an_image",
    "too_many_pixels",
    "too_small",
    "too_long",  # one side against the other
    "wrong_hash",  # not the file that the pair names
    "other",
)
_RETRYABLE = frozenset({"dns", "connect", "timeout", "cut_off", "http_5xx"})
_RETRYABLE_STATUS = ("http_4xx: 408", "http_4xx: 425", "http_4xx: 429")
_FINAL = ("dns: no such host", "http_5xx: 501", "http_5xx: 505")
_URLLIB = ("unknown url type", "Invalid IPv6 URL", "nonnumeric port", "no host given")  # its words for an address
_RETRY_AFTER = re.compile(r"retry after (\d{1,12}) s$")


class DownloadFailure(Exception):
    """`reason` is one of REASONS; the text is "reason: detail"."""

    def __init__(self, reason: str, detail: object = "") -> None:
        super().__init__(f"{reason}: {' '.join(str(detail)[:200].split())}")
        self.reason = reason


# In this order: those before `connect` are OSError too.
_KINDS: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("refused_address", (RefusedAddress,)),
    ("dns", (socket.gaierror,)),
    ("tls", (ssl.SSLError,)),
    ("cut_off", (http.client.IncompleteRead,)),
    ("connect", (OSError,)),  # also RemoteDisconnected, which is an HTTPException as well
    ("protocol", (http.client.HTTPException, zlib.error)),
    ("bad_url", (ValueError,)),
)


def failure_of(error: BaseException) -> DownloadFailure:
    """The error as a DownloadFailure with its reason."""
    if isinstance(error, DownloadFailure):
        return error
    if isinstance(error, socket.gaierror) and never_resolves(error):
        return DownloadFailure("dns", "no such host")
    if isinstance(error, TimeoutError):
        return DownloadFailure("timeout", "not in time")  # in the same words each time, whichever limit came first
    for kind, types in _KINDS:
        if isinstance(error, types):
            return DownloadFailure(kind, error)
    return DownloadFailure("other", f"{type(error).__name__} {error}")


def status_reason(status: int) -> str:
    """The reason for an HTTP status that is no success."""
    return {4: "http_4xx", 5: "http_5xx"}.get(status // 100, "protocol")


def status_failure(status: int, wait: float | None = None) -> DownloadFailure:
    """The failure of an HTTP status that is no success; `wait`: seconds that the server asks to wait."""
    return DownloadFailure(
        status_reason(status), f"{status}, retry after {min(wait, 10**12 - 1):.0f} s" if wait else status
    )


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks to wait (RFC 9110, 10.2.3); None if it says nothing of use.

    >>> retry_after("120"), retry_after("soon"), retry_after("Wed, 21 Oct 2015 07:28:00 GMT")
    (120.0, None, 0.0)
    """
    text = (value or "").strip()[:64]
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None


def reason_of(message: str) -> str:
    """The reason in an error text that img2dataset kept; one of REASONS."""
    reason = message.split(":", 1)[0]
    if reason in REASONS:
        return reason
    return "bad_url" if message.startswith(_URLLIB) else "other"


def asked_wait(message: str) -> float:
    """Seconds that the server asked to wait, in an error text; 0 if it did not."""
    found = _RETRY_AFTER.search(message)
    return float(found.group(1)) if found else 0.0


def may_succeed_later(message: str) -> bool:
    """Whether the failure with this error text is worth another try."""
    if message.startswith(_FINAL):
        return False
    return reason_of(message) in _RETRYABLE or message.startswith(_RETRYABLE_STATUS)
