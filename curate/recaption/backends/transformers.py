"""Captions by an image-text-to-text model of Hugging Face's transformers, by folder or name, on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from curate.errors import RequestError, WorkError
from curate.recaption.contract import Answer, Backend, Request
from curate.recaption.local.batches import ready

if TYPE_CHECKING:
    from curate.recaption.local.vlm import Vlm

_HOW = {"device", "batch_size", "threads"}  # what does not decide what is written


class Transformers(Backend):
    """Asks the prompt as a user's message where the model has a chat template; else the caption goes on after it."""

    name: ClassVar[str] = "transformers"

    model: str  # a folder, or a name on the hub
    revision: str | None = None
    max_tokens: int = Field(64, ge=1)
    temperature: float = Field(0.0, ge=0, le=10)  # 0: the likeliest token each time
    top_p: float = Field(1.0, gt=0, le=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 on a GPU, fp32 on a CPU
    device: str | None = None  # the GPU if there is one
    batch_size: int = Field(8, ge=1)
    threads: int = Field(4, ge=1)  # that decode images

    @property
    def model_name(self) -> str:
        from pathlib import Path

        return f"transformers-{_version(self)[:12]}" if Path(self.model).is_dir() else self.model

    def facts(self) -> dict[str, Any]:
        """The version of the weights stands for the folder's name."""
        return self.model_dump(mode="json", exclude=_HOW | {"model", "revision"}) | {"weights": _version(self)}

    def write(self, requests: Iterable[Request]) -> Iterator[Answer]:
        from torch import OutOfMemoryError

        vlm = _load(self)
        collate = partial(vlm.inputs, self.batch_size)
        batches = ready(requests, self.batch_size, vlm.side, lambda image: image, self.threads, collate, by_prompt=True)
        for batch in batches:
            yield from batch.failed
            if not batch.requests:
                continue
            try:
                said = vlm.generate(batch.inputs, batch.requests, self.max_tokens, self.temperature, self.top_p)
            except OutOfMemoryError as error:
                smaller = f"set backend.transformers.batch_size below {self.batch_size}"
                raise WorkError(f"the device has too little memory: {smaller}") from error
            for request, (text, read, written) in zip(batch.requests, said, strict=True):
                yield Answer(request.uid, request.number, text or None, None if text else "empty answer", read, written)


@cache
def _load(settings: Transformers) -> Vlm:
    from curate.recaption.local.vlm import load

    try:
        return load(settings.model, settings.revision, settings.precision, settings.device)
    except ImportError as error:
        raise RequestError(f"backend.transformers: it needs {error.name or error}: pip install 'curate[hf]'") from error
    except Exception as error:  # of the many ways in which a folder can be no model
        raise _refused(settings, error) from error


@cache
def _version(settings: Transformers) -> str:
    from curate.recaption.local.vlm import version

    try:
        return version(settings.model, settings.revision)
    except ImportError as error:
        raise RequestError(f"backend.transformers: it needs {error.name or error}: pip install 'curate[hf]'") from error
    except Exception as error:  # any of a hub's many network errors
        raise _refused(settings, error) from error


def _refused(settings: Transformers, error: Exception) -> RequestError:
    """One line that says which model, and the first sentence of why."""
    why = " ".join(str(error).split())[:300] or type(error).__name__
    return RequestError(
        f"backend.transformers.model: {settings.model} cannot be used: {why}; give a folder that holds the model, or a "
        "name on the hub where it can be reached"
    )
