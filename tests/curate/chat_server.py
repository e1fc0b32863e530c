"""A server of OpenAI's chat completions for the tests: real HTTP on loopback, strict about what it is sent.

It checks requests as the real ones do, answers a caption that depends on the question alone, counts what it bills, and
answers a repeated `Idempotency-Key` from memory without billing it again. A script may give any question any fault.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from tests.running import running

MODEL = "tiny-vlm"


@dataclass(frozen=True)
class Fault:
    """What goes wrong: an answer instead of the caption, or one of the ways to break it on its way.

    `how`: reset (no answer), late (the caption, but the connection breaks before it is sent), cut (half of it, with
    a Content-Length of the whole), half (half of its JSON, as if it were whole), hang, drip (a byte now and then),
    endless.
    """

    status: int = 200
    body: bytes | dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    how: str = ""


@dataclass(frozen=True)
class Question:
    """One request as it came. `subject` is the SHA-256 of the image sent, or the last text where there is none."""

    subject: str
    tries: int  # how often this question came, 1 for the first time
    number: int  # how many came before it, of all
    body: dict[str, Any]
    headers: dict[str, str]


Script = Callable[[Question], Fault | None]


class ChatServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script: Script | None = None, *, key: str = "", delay: float = 0.0, remembers: bool = True):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: Script = script or (lambda question: None)
        self.key, self.delay, self.remembers = key, delay, remembers
        self.questions: list[Question] = []
        self.billed: Counter[str] = Counter()
        self.tokens = Counter[str]()
        self.most_at_once = 0
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self._busy = 0
        self._tries: Counter[str] = Counter()
        self._answers: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        pass

    @contextmanager
    def busy(self) -> Iterator[None]:
        with self.lock:
            self._busy += 1
            self.most_at_once = max(self.most_at_once, self._busy)
        try:
            yield
        finally:
            with self.lock:
                self._busy -= 1

    def question(self, body: dict[str, Any], headers: dict[str, str]) -> Question:
        subject = _subject(body)
        with self.lock:
            name = headers.get("Idempotency-Key") or subject
            self._tries[name] += 1
            asked = Question(subject, self._tries[name], len(self.questions), body, headers)
            self.questions.append(asked)
        return asked

    def answer(self, question: Question) -> bytes:
        """The caption, computed and billed at most once for a key."""
        key = question.headers.get("Idempotency-Key", "")
        with self.lock:
            if self.remembers and key in self._answers:
                return self._answers[key]
            self.billed[question.subject] += 1
            made = completion(caption_of(question))
            usage = json.loads(made)["usage"]
            self.tokens.update(usage)
            self._answers[key] = made
            return made


def caption_of(question: Question) -> str:
    """What this server's model writes: the same for the same question."""
    sampled = json.dumps([question.subject, question.body.get("seed"), question.body.get("temperature")])
    return f"a picture called {hashlib.sha256(sampled.encode()).hexdigest()[:12]}"


def completion(content: Any, finish: str = "stop", usage: Any = "count", **message: Any) -> bytes:
    """A whole chat completion with this content."""
    if usage == "count":
        usage = {"prompt_tokens": 300, "completion_tokens": 10, "total_tokens": 310}
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": finish}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
    return json.dumps(whole | ({"usage": usage} if usage is not None else {})).encode()


def problem(message: str, code: str | None = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _subject(body: dict[str, Any]) -> str:
    """The digest of the image; without one the last message's text."""
    last = body["messages"][-1]["content"]
    for part in last if isinstance(last, list) else ():
        if part["type"] == "image_url":
            return hashlib.sha256(image_of(part)).hexdigest()
    return last if isinstance(last, str) else last[-1]["text"]


def image_of(part: dict[str, Any]) -> bytes:
    """The bytes in a data URL, which must be what it says and what an endpoint reads."""
    head, _, data = part["image_url"]["url"].partition(";base64,")
    raw = base64.b64decode(data, validate=True)
    with Image.open(io.BytesIO(raw)) as image:
        if head != f"data:image/{image.format.lower()}" or image.format not in ("JPEG", "PNG", "WEBP"):
            raise ValueError(f"{head} is not {image.format}")
        image.load()
    return raw


def wrong_with(body: Any) -> tuple[str, str]:
    """What a strict server finds wrong with a request: message and code; two empty strings for nothing."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        return "messages is required", "missing_required_parameter"
    known = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "seed", "top_p", "top_k"}
    if extra := sorted(body.keys() - known):
        return f"Unrecognized request argument supplied: {extra[0]}", "unknown_parameter"
    roles = [message.get("role") for message in body["messages"]]
    if roles[-1] != "user" or not set(roles) <= {"system", "user", "assistant"}:
        return "roles must end with user", "invalid_value"
    if not -(2**31) <= body.get("seed", 0) < 2**31 or not 0 <= body.get("temperature", 0) <= 2:
        return "out of range", "invalid_value"
    if body.get("model") != MODEL:
        return f"The model `{body.get('model')}` does not exist", "model_not_found"
    try:
        _subject(body)
    except Exception as error:
        return f"invalid image: {type(error).__name__}", "invalid_image"
    return "", ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(20)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v1/chat/completions":
            return self._send(404, problem("Not Found", kind="not_found"))
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            given = self.headers.get("Authorization", "none")
            return self._send(401, problem(f"Incorrect API key provided: {given}", "invalid_api_key"))
        body = json.loads(raw)
        message, code = wrong_with(body)
        if code:
            return self._send(404 if code == "model_not_found" else 400, problem(message, code))
        with self.server.busy():
            question = self.server.question(body, dict(self.headers))
            fault = self.server.script(question)
            if fault and not fault.how:
                return self._send(fault.status, fault.body if fault.body is not None else problem("no"), fault.headers)
            if self.server.delay:
                time.sleep(self.server.delay)
            if fault:
                return self._break(question, fault.how)
            return self._send(200, self.server.answer(question))

    def _send(self, status: int, body: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _break(self, question: Question, how: str) -> None:
        self.close_connection = True
        if how in ("reset", "late"):
            if how == "late":
                self.server.answer(question)
            self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0 seconds: closing resets
            for end in (self.rfile, self.wfile, self.connection):
                end.close()
            return
        if how == "hang":
            self.server.stopping.wait(20)
            return
        if how == "half":
            made = self.server.answer(question)
            return self._send(200, made[: len(made) // 2])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if how == "cut":
            made = self.server.answer(question)
            self.send_header("Content-Length", str(len(made)))
            self.end_headers()
            self.wfile.write(made[: len(made) // 2])
            return
        self.end_headers()
        while not self.server.stopping.wait(0.05 if how == "drip" else 0):
            self.wfile.write(b" " if how == "drip" else b" " * 65536)


@contextmanager
def chat_server(script: Script | None = None, **more: Any) -> Iterator[ChatServer]:
    with running(ChatServer(script, **more)) as server:
        yield server
