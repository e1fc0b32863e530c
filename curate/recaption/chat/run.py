"""The course of a run: how much is sent, when it has to end, and what of it is kept."""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from curate.errors import RequestError, WorkError
from curate.recaption.chat.pump import Pump
from curate.recaption.chat.reply import Outcome, Reply
from curate.recaption.contract import Answer, Request

log = logging.getLogger(__name__)
GRACE = 30.0  # seconds for what was sent to be answered once the run has to end: it may have been billed
_SPARE = 4  # requests prepared ahead of those that may be sent


@dataclass(frozen=True)
class Limits:
    """When a run ends before its requests do."""

    setting: str
    key_env: str
    concurrency: int
    failures_in_a_row: int
    max_cost: float | None
    least_reserve: float  # what an answer costs at least if it is as long as it may be


class Run:
    """Takes requests as they can be sent and yields answers as they come; used once."""

    def __init__(
        self,
        pump: Pump,
        limits: Limits,
        answer: Callable[[Request, Reply], Answer],
        cost: Callable[[int, int], float | None],
    ) -> None:
        self.pump, self.limits, self._answer, self._cost = pump, limits, answer, cost
        self.spent = self._dearest = 0.0
        self._end: Exception | None = None
        self._texts = self._failed_in_a_row = 0
        self._held: list[Answer] = []  # refused requests, while nothing was ever answered
        self._told: set[str] = set()

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """Yield an answer for each request.

        Raises:
            RequestError, WorkError: no request can pass; after every answer that came was yielded.
        """
        feed = iter(requests)
        more = True
        while more or self.pump.held:
            while more and self._end is None and self._may_send():
                request = next(feed, None)
                if request is None:
                    more = False
                elif self._affordable():
                    self.pump.put(request)
                    if self.pump.waiting:
                        break  # one in, one out: what is answered is kept at once, and the server never waits for it
                else:
                    self._end = self._budget_spent()
            if self._end is not None:
                yield from self._rest()
                break
            if self.pump.held:
                yield from self._take(*self.pump.get())
        if self._end is not None:
            raise self._end
        yield from self._held

    def _may_send(self) -> bool:
        held = self.pump.held
        if held and not self._affordable():
            return False  # what is on its way may cost less than is set aside for it
        return held < self.limits.concurrency + _SPARE

    def _affordable(self) -> bool:
        """Whether one more answer fits if all on their way cost as much as the dearest so far; the first goes alone."""
        if self.limits.max_cost is None:
            return True
        if not self._texts:
            return not self.pump.held
        reserve = max(self._dearest, self.limits.least_reserve)
        return self.spent + (self.pump.held + 1) * reserve <= self.limits.max_cost

    def _take(self, request: Request, reply: Reply | BaseException) -> Iterator[Answer]:
        """What becomes of a reply: an answer now or later, the end of the run, or both."""
        if isinstance(reply, asyncio.CancelledError):
            return
        if isinstance(reply, BaseException):
            self._stop(reply if isinstance(reply, Exception) else WorkError(f"{self.limits.setting}: {reply!r}"))
            return
        if reply.outcome in (Outcome.WRONG, Outcome.SPENT):
            self._stop(self._wrong(reply))
            return
        self._count(reply)
        answer = self._answer(request, reply)
        if reply.outcome is Outcome.TEXT:
            yield from self._held
            self._held = []
        if self._doubtful(reply) and self._end is None:
            self._held.append(answer)  # perhaps it is not this request that is wrong, but all
        else:
            yield answer

    def _count(self, reply: Reply) -> None:
        if reply.said and reply.outcome is Outcome.ERROR and reply.error not in self._told:
            self._told.add(reply.error)
            log.warning("%s: %s for a request: %s", self.limits.setting, reply.error, reply.said)
        cost = self._cost(reply.tokens_in, reply.tokens_out) or 0.0
        self.spent += cost
        self._dearest = max(self._dearest, cost)
        if reply.outcome is Outcome.TEXT:
            self._texts += 1
            self._failed_in_a_row = 0
            if self.limits.max_cost is not None and not reply.counted:
                self._stop(RequestError(f"{self.limits.setting}.max_cost: the server counts no tokens, so no budget "
                                        "can be kept; leave max_cost away"))  # fmt: skip
        elif reply.outcome is Outcome.ERROR and reply.status:
            self._failed_in_a_row = self._failed_in_a_row + 1 if self._doubtful(reply) else 0
            if self._failed_in_a_row >= self.limits.failures_in_a_row:
                self._stop(RequestError(f"{self.limits.setting}: the server refuses every request with {reply.error}: "
                                        f"{reply.said or 'it does not say why'}"))  # fmt: skip
        elif reply.outcome is not Outcome.ERROR:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= self.limits.failures_in_a_row:
                self._stop(WorkError(f"{self.limits.setting}: {self._failed_in_a_row} requests in a row failed, the "
                                     f"last with {reply.error}; what was answered is kept: run the same command again "
                                     "when the server works"))  # fmt: skip

    def _doubtful(self, reply: Reply) -> bool:
        """Whether a request was refused in a way that may be every request's: nothing was ever answered."""
        return reply.outcome is Outcome.ERROR and reply.error.startswith("http ") and not self._texts

    def _stop(self, error: Exception) -> None:
        if self._end is None:
            self._end = error
            self.pump.stop()

    def _rest(self) -> Iterator[Answer]:
        """What was on its way when the run had to end, as far as it is answered in time."""
        self.pump.stop()
        until = time.monotonic() + GRACE
        while self.pump.held:
            try:
                request, reply = self.pump.get(max(0.0, until - time.monotonic()))
            except queue.Empty:
                log.warning("%s: %d requests were sent and not answered", self.limits.setting, self.pump.held)
                return
            if isinstance(reply, Reply) and reply.outcome in (Outcome.TEXT, Outcome.ERROR):
                yield from self._take(request, reply)

    def _wrong(self, reply: Reply) -> Exception:
        setting, said = self.limits.setting, f": {reply.said}" if reply.said else ""
        if reply.outcome is Outcome.SPENT:
            return WorkError(f"{setting}: the account has no credit left{said}; run the same command again when it has")
        if reply.status == 401 or reply.status == 403:
            return RequestError(f"{setting}.api_key_env: the server refuses the key in {self.limits.key_env} with "
                                f"{reply.error}{said}")  # fmt: skip
        if reply.status == 404:
            return RequestError(f"{setting}.model: the server has no such model, or base_url is not where its /v1 "
                                f"begins: http 404{said}")  # fmt: skip
        if 300 <= reply.status < 400:
            return RequestError(f"{setting}.base_url: the server answers with a redirect, which is not followed; "
                                "write the address that it leads to")  # fmt: skip
        return RequestError(f"{setting}.base_url: {reply.error}{said}")

    def _budget_spent(self) -> WorkError:
        return WorkError(f"{self.limits.setting}.max_cost: {self.spent:.4g} of {self.limits.max_cost:.4g} is spent, "
                         "and the next answer may cost more than is left; what was answered is kept: run the same "
                         "command again for as much again")  # fmt: skip
