"""Backends and a check for the tests of recaptioning: deterministic, and they count what they are asked."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from curate.recaption.contract import REFUSED, Answer, Backend, Check, Request


class Parrot(Backend):
    """Describes an image by a digest of its bytes. `log` is a file that gets a line for each request it answers."""

    name: ClassVar = "parrot"
    log: str | None = None
    style: str = "plain"
    fails: tuple[str, ...] = ()
    """Requests whose digest begins so have no answer for now."""
    wrong: tuple[str, ...] = ()
    """And these never will."""
    dies_after: int | None = None
    """Answers after which the process kills itself."""
    backwards: bool = False
    """It answers in another order: some together, the last first."""

    @property
    def model_name(self) -> str:
        return "parrot-1"

    def facts(self) -> dict[str, Any]:
        return {"style": self.style}

    def write(self, requests: Iterable[Request]) -> Iterator[Answer]:
        held, answered = list[Answer](), 0
        for request in requests:
            held.append(self._answer(request))
            if self.backwards and len(held) < 5:
                continue
            for answer in reversed(held):
                yield answer
                answered += 1
                if answered == self.dies_after:
                    os.kill(os.getpid(), signal.SIGKILL)
            held = []
        yield from held

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        return (tokens_in + 2 * tokens_out) / 1000

    def _answer(self, request: Request) -> Answer:
        assert request.image is not None
        digest = hashlib.sha256(request.image).hexdigest()[:8]
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{request.uid} {request.number} {digest} {request.seed}\n")
        if digest.startswith(self.fails):
            return Answer(request.uid, request.number, None, "server is down", final=False)
        if digest.startswith(self.wrong):
            return Answer(request.uid, request.number, None, "image cannot be decoded")
        return Answer(request.uid, request.number, f"{self.style} picture {digest} take {request.number}", None, 10, 5)


class Rewriter(Backend):
    """Writes captions from captions."""

    name: ClassVar = "rewriter"
    needs_image: ClassVar = False

    @property
    def model_name(self) -> str:
        return "rewriter-1"

    def facts(self) -> dict[str, Any]:
        return {}

    def write(self, requests: Iterable[Request]) -> Iterator[Answer]:
        for request in requests:
            assert request.image is None
            yield Answer(request.uid, request.number, f"rewritten: {request.caption}")


class Odd(Check):
    """Refuses captions whose digest begins with certain signs."""

    name: ClassVar = "odd"
    begins: tuple[str, ...]

    @property
    def reads(self) -> Sequence[str]:
        return ("caption",)

    def refuses(self, captions: pa.Table) -> pa.Table:
        words = [caption.split()[2] for caption in captions["caption"].to_pylist()]
        bad = [(n, f"{word} is odd") for n, word in enumerate(words) if word.startswith(self.begins)]
        return pa.table({"row": [n for n, _ in bad], "reason": [r for _, r in bad]}, REFUSED)
