"""Ask the backend for every caption that no journal has yet, shard after shard, and keep every answer."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from curate.errors import RequestError, WorkError
from curate.measure import ShardTask, read_features
from curate.recaption.contract import Answer, Request
from curate.recaption.journal import Journal, Journals, Said
from curate.recaption.settings import Settings
from curate.storage import Folder

MAX_CAPTION = 20_000
"""Characters: an answer that is longer is no caption."""
MOSTLY = 4
"""A remote shard is copied here whole where a part of its bytes this large is asked about."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ShardWork:
    """The candidates of one shard: their rows in it, int64 (n,), in order."""

    task: ShardTask
    rows: np.ndarray


@dataclass(frozen=True, slots=True)
class Question:
    """A request without its image, and the `id` under which its answer is kept."""

    id: str
    uid: str
    number: int
    prompt: str
    seed: int
    caption: str
    offset: int = 0
    size: int = 0


@dataclass(frozen=True)
class Asked:
    """What asking came to, in this run."""

    asked: int
    answered_before: int
    failed: int
    """Of those asked, without a caption for a reason that another run may not meet."""
    first_failure: str | None
    seconds: float


def ask(work: Sequence[ShardWork], settings: Settings, journals: Journals, progress: Progress | None = None) -> Asked:
    """Put every question to the backend whose answer is not known or was not final.

    Images are read one by one as the backend takes the requests, so memory does not grow with the pool.

    Raises:
        RequestError, WorkError: what the backend raises: no request can pass.
        WorkError: every request failed, or the backend answers what it was not asked.
    """
    began = time.monotonic()
    with journals.alone():
        desk = _Desk(work, settings, journals, progress)
        try:
            requests = desk.requests()
            if (first := next(requests, None)) is not None:  # a backend need not load for nothing
                for answer in settings.backend.write(itertools.chain([first], requests)):
                    desk.settle(answer)
            desk.unanswered()
        except (RequestError, WorkError, OSError):
            raise
        except Exception as error:  # a user's own backend may raise anything; what it answered is kept
            raise WorkError(
                f"backend {settings.backend_name} failed: {type(error).__name__}: {error}; what it answered is "
                "kept, so run the same command again to resume (-v shows where it failed)"
            ) from error
        finally:
            desk.close()
    if desk.sent and desk.failed == desk.sent and not desk.before:
        raise WorkError(
            f"no caption was written: each of {desk.sent} requests to {settings.backend_name} failed, the first: "
            f"{desk.first_failure}; run the same command again to resume"
        )
    return Asked(desk.sent, desk.before, desk.failed, desk.first_failure, time.monotonic() - began)


def questions(work: ShardWork, settings: Settings) -> list[Question]:
    """All that is asked of a shard, sample by sample."""
    table = read_features(work.task, ["uid", "caption", "image_offset", "image_size"]).take(pa.array(work.rows))
    found = []
    for row in table.to_pylist():
        for number in range(settings.samples_per_image):
            prompt = settings.prompts[number % len(settings.prompts)]
            # Each caption has a seed of its own, or all samples of an image would be drawn alike.
            seed = xxhash.xxh3_64_intdigest(f"{row['uid']}/{number}".encode(), settings.seed) & 0x7FFFFFFF
            caption = row["caption"] or ""
            facts = [row["uid"], number, prompt, seed, caption if settings.backend.reads_caption else None]
            id = hashlib.sha256(orjson.dumps(facts)).hexdigest()[:32]
            found.append(Question(id, row["uid"], number, prompt, seed, caption, row["image_offset"] or 0,
                                  row["image_size"] or 0))  # fmt: skip
    return found


def cleaned(answer: Answer) -> Said:
    """An answer as it is kept: text without control characters, and an error where there is none."""
    caption, error = answer.caption, answer.error
    if caption is not None:
        caption = plain_text(caption)
        if not caption:
            caption, error = None, "empty answer"
        elif len(caption) > MAX_CAPTION:
            caption, error = None, f"answer of more than {MAX_CAPTION} characters"
        else:
            error = None
    elif error is None:
        error = "no answer"
    error = plain_text(error)[:500] or "no answer" if error is not None else None
    return Said(caption, error, max(0, int(answer.tokens_in)), max(0, int(answer.tokens_out)), bool(answer.final))


def plain_text(text: str) -> str:
    """Text without control characters but line ends, none that turn the direction of what follows, no half characters.

    >>> plain_text(" a\\x00 red\\t car\\u202e \\r\\n")
    'a red car'
    """
    lines = [" ".join(line.split()) for line in text.splitlines()]
    kept = "\n".join(line for line in lines if line)
    return "".join(c for c in kept if c == "\n" or _is_plain(c)).strip()


def _is_plain(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs") and character not in _TURNING


_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


@dataclass
class _Ticket:
    """A question that was put, and where its answer goes."""

    id: str
    shard: str


@dataclass
class _Desk:
    """Hands out requests and takes answers, which a backend may do in different threads."""

    work: Sequence[ShardWork]
    settings: Settings
    journals: Journals
    progress: Progress | None
    sent: int = 0
    before: int = 0
    failed: int = 0
    first_failure: str | None = None
    _open: dict[str, Journal] = field(default_factory=dict)
    _left: dict[str, int] = field(default_factory=dict)
    """Answers that a shard waits for, and one more while its questions are not all put."""
    _waiting: dict[tuple[str, int], list[_Ticket]] = field(default_factory=dict)
    _done: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def requests(self) -> Iterator[Request]:
        """The requests whose answers are not known, in pool order, each read as it is taken."""
        for work in self.work:
            asked, shard = questions(work, self.settings), work.task.shard.name
            with self._lock:
                journal = self._open[shard] = self.journals.open(shard)
                self._left[shard] = 1
            unknown = [q for q in asked if not ((said := journal.known.get(q.id)) and said.final)]
            self._tell(len(asked) - len(unknown), before=True)
            if unknown:
                yield from self._put(work, unknown)
            self._one_less(shard)

    def _put(self, work: ShardWork, asked: Sequence[Question]) -> Iterator[Request]:
        shard, needs_image = work.task.shard, self.settings.backend.needs_image
        with images(work.task.pool, shard.name, shard.size, asked if needs_image else ()) as image:
            for question in asked:
                data = image(question) if needs_image else None
                with self._lock:
                    if (said := self._open[shard.name].known.get(question.id)) and said.final:
                        self._tell(1)  # the sample stands twice in the shard
                        continue
                    self._left[shard.name] += 1
                    self.sent += 1
                    tickets = self._waiting.setdefault((question.uid, question.number), [])
                    tickets.append(_Ticket(question.id, shard.name))
                    alone = len(tickets) == 1
                if alone:  # else the same is asked already, of a sample of the same uid
                    yield Request(question.uid, question.number, question.prompt, question.seed, question.caption, data)

    def settle(self, answer: Answer) -> None:
        """Keep an answer."""
        said = cleaned(answer)
        with self._lock:
            tickets = self._waiting.pop((answer.uid, answer.number), None)
            if tickets is None:
                name = self.settings.backend_name
                raise WorkError(f"backend {name} answered what it was not asked, or twice: {answer.uid!r}")
            for ticket in tickets:
                self._open[ticket.shard].add(ticket.id, said)
                if not said.final and said.caption is None:
                    self.failed += 1
                    self.first_failure = self.first_failure or said.error
                self._one_less(ticket.shard)
            self._tell(len(tickets))

    def unanswered(self) -> None:
        """What the backend left without an answer is asked again another time."""
        for uid, number in list(self._waiting):
            self.settle(Answer(uid, number, None, "no answer", final=False))

    def close(self) -> None:
        with self._lock:
            for shard in list(self._open):
                self.journals.done(shard, self._open.pop(shard))

    def _one_less(self, shard: str) -> None:
        with self._lock:
            self._left[shard] -= 1
            if not self._left[shard]:
                self.journals.done(shard, self._open.pop(shard))

    def _tell(self, count: int, before: bool = False) -> None:
        with self._lock:
            self._done += count
            self.before += count if before else 0
            if self.progress:
                total = sum(len(work.rows) for work in self.work) * self.settings.samples_per_image
                self.progress("captions", self._done, total)


@contextlib.contextmanager
def images(pool: Folder, shard: str, size: int, asked: Sequence[Question]) -> Iterator[Callable[[Question], bytes]]:
    """Yield what reads the image of a question from its place in the shard.

    The function raises WorkError where the shard ends before the image does.
    """
    whole = pool.is_local or sum(question.size for question in asked) * MOSTLY > size
    if not whole:

        def fetched(question: Question) -> bytes:
            end = question.offset + question.size
            return _whole(pool.fs.cat_file(pool.path(shard), start=question.offset, end=end), question, shard)

        yield fetched
        return
    with pool.local_copy(shard) as path, Path(path).open("rb", buffering=0) as file:
        assert isinstance(file, FileIO)
        descriptor = file.fileno()
        yield lambda question: _whole(os.pread(descriptor, question.size, question.offset), question, shard)


def _whole(data: bytes, question: Question, shard: str) -> bytes:
    if len(data) != question.size:
        raise WorkError(f"{shard} ended while it was read; it changed since it was measured")
    return data
