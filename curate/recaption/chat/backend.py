"""The parameters and the work that all backends share which ask a server: docs/recaption_endpoints.md lists them."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from curate.errors import RequestError
from curate.recaption.chat.client import Client, Wire
from curate.recaption.chat.images import UnsendableImage
from curate.recaption.chat.pump import Pump
from curate.recaption.chat.reply import Outcome, Reply
from curate.recaption.chat.run import Limits, Run
from curate.recaption.chat.text import clean_caption, plain, whole_sentences
from curate.recaption.contract import Answer, Backend, Request

log = logging.getLogger(__name__)
_OURS = {"model", "messages", "stream", "n", "seed", "temperature", "max_tokens", "max_completion_tokens"}
_SECRET = re.compile(r"key|token$|secret|password|authorization", re.IGNORECASE)
# What changes neither the words nor what they cost; `base_url` is told by `server`.
_WIRING = {"base_url", "api_key_env", "api_key_header", "concurrency", "timeout", "total_timeout", "retries"}
_WIRING |= {"first_wait", "max_wait", "max_response_bytes", "price_in", "price_out", "max_cost", "failures_in_a_row"}


class ChatBackend(Backend):
    """A backend behind a server that speaks OpenAI's chat completions."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str  # up to and with /v1
    model: str = Field(min_length=1)
    server: str | None = None  # names the server in the cache of answers; its address if it is not given
    api_key_env: str = Field("OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    api_key_header: str = Field("Authorization", pattern=r"^[A-Za-z][A-Za-z0-9-]*$")

    temperature: float | None = Field(0.7, ge=0, le=2)  # None: the server's own
    max_tokens: int = Field(160, ge=1, le=100_000)
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    send_seed: bool = True
    system: str | None = None  # instead of the backend's own; what is said of untrusted text is always added
    system_in_user: bool = False  # for models whose template has no system message
    extra_body: dict[str, JsonValue] = {}
    when_cut: Literal["sentence", "error", "keep"] = "sentence"  # an answer that ended at max_tokens
    max_chars: int = Field(1000, ge=1, le=15_000)

    concurrency: int = Field(32, ge=1, le=1024)
    timeout: float = Field(120.0, gt=0)  # seconds for one try
    total_timeout: float = Field(900.0, gt=0)  # seconds for all tries of a request
    retries: int = Field(8, ge=0, le=100)
    first_wait: float = Field(1.0, gt=0)  # seconds before the second try; then twice as long each time
    max_wait: float = Field(60.0, gt=0)  # seconds at most, also where the server asks for more
    max_response_bytes: int = Field(1_000_000, ge=1000)
    failures_in_a_row: int = Field(16, ge=1)  # requests given up one after the other: then the run ends

    price_in: float | None = Field(None, ge=0)  # for a million tokens
    price_out: float | None = Field(None, ge=0)
    max_cost: float | None = Field(None, gt=0)  # for one run, in the currency of the prices

    @abstractmethod
    def messages(self, request: Request) -> list[dict[str, Any]]:
        """What is asked. Raises ValueError with a few words, or UnsendableImage, if the request cannot be sent."""

    @model_validator(mode="before")
    @classmethod
    def _no_secret(cls, raw: Any) -> Any:
        names = [str(name) for name in raw] if isinstance(raw, dict) else []
        if secret := next((name for name in names if _SECRET.search(name) and name not in cls.model_fields), None):
            raise ValueError(f"{secret!r} looks like a secret; put the key into the environment, under the name that "
                             "api_key_env gives")  # fmt: skip
        return raw

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            parts = urlsplit(value.strip())
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError("it is no address") from error
        if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f\x7f]", value.strip()):
            raise ValueError("write an http or https address, such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("no user, password, query or fragment in the address; a key belongs in the environment")
        return value.strip().rstrip("/").removesuffix("/chat/completions")

    @field_validator("extra_body")
    @classmethod
    def _extra(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(_OURS & value.keys()):
            raise ValueError(f"{taken[0]!r} is not set here: it has a parameter of its own, or must stay as it is")
        if secret := next((name for name in value if _SECRET.search(name)), None):
            raise ValueError(f"{secret!r} looks like a secret, which belongs in the environment: api_key_env")
        return value

    @model_validator(mode="after")
    def _prices(self) -> ChatBackend:
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in and price_out go together")
        if self.max_cost is not None and self.price_in is None:
            raise ValueError("max_cost needs price_in and price_out")
        return self

    @property
    def model_name(self) -> str:
        return self.model

    @property
    def setting(self) -> str:
        """What messages call these parameters."""
        return f"backend.{self.name}"

    def facts(self) -> dict[str, Any]:
        """Everything that decides the words; where the server lies only if `server` gives it no name."""
        return self.model_dump(mode="json", exclude=_WIRING) | {"server": self.server or self.base_url}

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def write(self, requests: Iterable[Request]) -> Iterator[Answer]:
        wire = self._wire()
        limits = Limits(self.setting, self.api_key_env, self.concurrency, self.failures_in_a_row, self.max_cost,
                        (self.price_out or 0.0) * self.max_tokens / 1e6)  # fmt: skip
        with Pump(lambda: Client(wire), self._body) as pump:
            yield from Run(pump, limits, self.answer, self.cost).answers(requests)

    def answer(self, request: Request, reply: Reply) -> Answer:
        """A reply as the contract has it."""
        text, error = None, reply.error or None
        if reply.outcome is Outcome.TEXT:
            text = clean_caption(reply.text, self.max_chars)
            if reply.cut and self.when_cut != "keep":
                text = whole_sentences(text) if self.when_cut == "sentence" else ""
                error = None if text else "cut off at max_tokens"
            else:
                error = None if text else "empty answer"
        final = reply.outcome in (Outcome.TEXT, Outcome.ERROR)
        return Answer(request.uid, request.number, text or None, error, reply.tokens_in, reply.tokens_out, final)

    def _body(self, request: Request) -> tuple[bytes, str] | Reply:
        """The request's bytes and its key, the same whenever it is sent again; or why it cannot be sent."""
        try:
            messages = self.messages(request)
        except (UnsendableImage, ValueError) as error:
            return Reply(Outcome.ERROR, error=str(error))
        body: dict[str, Any] = {"model": self.model, "messages": messages, self.max_tokens_field: self.max_tokens}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.send_seed:
            body["seed"] = request.seed & 0x7FFFFFFF  # servers take 32 bits, some without a sign
        data = orjson.dumps(body | self.extra_body)
        key = hashlib.sha256(orjson.dumps([request.uid, request.number, request.seed]) + data).hexdigest()
        return data, key[:48]

    def _with_system(self, system: str, turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Put the system's words first, or into the first turn where the model has no place for them."""
        if not self.system_in_user:
            return [{"role": "system", "content": system}, *turns]
        first, *rest = turns
        content = first["content"]
        if isinstance(content, str):
            return [first | {"content": f"{system}\n\n{content}"}, *rest]
        return [first | {"content": [{"type": "text", "text": system}, *content]}, *rest]

    def _wire(self) -> Wire:
        key = self._key()
        parts = urlsplit(self.base_url)
        if parts.scheme == "http" and not _local(parts.hostname or ""):
            what = "the key and the images go" if key else "the images go"
            log.warning("%s.base_url: %s over http://%s unencrypted; use https", self.setting, what, parts.netloc)
        value = f"Bearer {key}" if self.api_key_header.lower() == "authorization" else key
        return Wire(
            setting=self.setting, url=f"{self.base_url}/chat/completions",
            headers={self.api_key_header: value} if key else {}, secret=key, concurrency=self.concurrency,
            timeout=self.timeout, total_timeout=self.total_timeout, retries=self.retries, first_wait=self.first_wait,
            max_wait=self.max_wait, max_bytes=self.max_response_bytes,
        )  # fmt: skip

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and "api_key_env" in self.model_fields_set:
            raise RequestError(f"{self.setting}.api_key_env: the environment has no {self.api_key_env}; set it")
        if not all("!" <= letter <= "~" for letter in key):
            raise RequestError(f"{self.setting}.api_key_env: {self.api_key_env} holds what no key has, such as a space")
        return key


def as_data(caption: str, max_chars: int = 2000) -> str:
    """A text of the web as JSON, so that nothing in it ends the place that it is given."""
    return orjson.dumps({"caption": plain(caption)[:max_chars]}).decode()


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
