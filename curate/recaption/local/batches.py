"""Requests as batches whose images are ready for the model, decoded and resized by threads while it works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Queue
from typing import Any

from PIL import Image

from curate.features.batch import Batch
from curate.recaption.contract import Answer, Request
from curate.shards import Sample

_AHEAD = 2  # batches that are made ready beside the one that the model has


@dataclass(frozen=True)
class Ready:
    """Requests with what the model takes of their images, and answers to those whose image cannot be used."""

    requests: list[Request]
    inputs: Any
    """What `collate` makes of the prepared images, in the order of the requests; None where there is none."""
    failed: list[Answer]


def ready(
    requests: Iterable[Request],
    size: int,
    side: int,
    prepare: Callable[[Image.Image], Any],
    threads: int = 4,
    collate: Callable[[list[Request], list[Any]], Any] = lambda requests, images: images,
    by_prompt: bool = False,
) -> Iterator[Ready]:
    """Batches of `size` requests in their order, a few ahead of whoever takes them.

    A thread reads the requests and fills the queue, so files are read meanwhile too. What `requests` raises is raised
    here.

    Args:
        side: pixels; an image is decoded at the smallest scale whose shorter side has so many.
        prepare: what is done with each image by one of the `threads`.
        collate: what is then done with those of a batch, by one thread.
        by_prompt: whether all requests of a batch are to have the same prompt; others then wait for theirs.
    """
    queue: Queue[Ready | BaseException | None] = Queue(_AHEAD)
    stopped = threading.Event()

    def one(request: Request) -> Any:
        try:
            return prepare(decoded(request.image, side))
        except ValueError as error:
            return Answer(request.uid, request.number, None, str(error))

    def fill() -> None:
        try:
            with ThreadPoolExecutor(threads) as pool:
                for some in _groups(requests, size, by_prompt):
                    found = list(pool.map(one, some))
                    usable = [place for place, made in enumerate(found) if not isinstance(made, Answer)]
                    failed = [made for made in found if isinstance(made, Answer)]
                    sound = [some[place] for place in usable]
                    queue.put(Ready(sound, collate(sound, [found[p] for p in usable]) if sound else None, failed))
                    if stopped.is_set():
                        break
            queue.put(None)
        except BaseException as error:  # passed on to whoever takes the batches
            queue.put(error)

    reader = threading.Thread(target=fill, name="recaption-images", daemon=True)
    reader.start()
    try:
        while (made := queue.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            yield made
    finally:
        stopped.set()
        while reader.is_alive():
            if not queue.empty():
                queue.get_nowait()
            reader.join(0.01)


def _groups(requests: Iterable[Request], size: int, by_prompt: bool) -> Iterator[list[Request]]:
    waiting: dict[str, list[Request]] = {}
    for request in requests:
        kind = request.prompt if by_prompt else ""
        some = waiting.setdefault(kind, [])
        some.append(request)
        if len(some) == size:
            yield waiting.pop(kind)
    yield from waiting.values()


def decoded(image: bytes | None, side: int) -> Image.Image:
    """The image as RGB at the smallest scale of its decoder whose shorter side is at least `side` pixels.

    Raises:
        ValueError: there is none, or it cannot be read; the message says why.
    """
    if image is None:
        raise ValueError("no image")
    batch = Batch("", [Sample("", 0, 0, memoryview(image))])
    (found,) = batch.images(side, "RGB")
    if found is None:
        raise ValueError(next(iter((batch.open_errors | batch.decode_errors).values()), "image cannot be read"))
    return found
