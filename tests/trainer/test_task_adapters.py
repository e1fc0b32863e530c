"""The adapters to other evaluation suites.

lmms-eval's own classes are used where it is installed; else stand-ins with the same interface (lmms-eval 0.7.3:
`api/model.py`, `api/instance.py`; VLMEvalKit: `vlm/base.py`), which is not on the package index.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tomllib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from task_models import Scripted

INSTALLED = importlib.util.find_spec("lmms_eval") is not None


class Lmms:
    """What lmms-eval's `lmms` gives a subclass."""

    is_simple = True

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}

    @classmethod
    def create_from_arg_string(cls, text: str, additional: dict[str, Any] | None = None) -> Any:
        pairs = dict(pair.split("=") for pair in text.split(","))
        return cls(**pairs, **{k: v for k, v in (additional or {}).items() if v is not None})


@dataclass
class Instance:
    """What lmms-eval's `Instance` gives a model."""

    request_type: str
    arguments: tuple[Any, ...]
    idx: int
    metadata: dict[str, Any]

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments


def module(name: str, **members: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update(members)
    return made


@pytest.fixture
def lmms(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The adapter's module, with lmms-eval or its stand-in."""
    if not INSTALLED:
        for name, members in {"lmms_eval": {}, "lmms_eval.api": {}, "lmms_eval.api.model": {"lmms": Lmms}}.items():
            monkeypatch.setitem(sys.modules, name, module(name, **members))
    monkeypatch.delitem(sys.modules, "trainer.adapters.lmms_eval", raising=False)
    yield importlib.import_module("trainer.adapters.lmms_eval")
    sys.modules.pop("trainer.adapters.lmms_eval")  # it may be a stand-in's subclass


def request(kind: str, arguments: tuple[Any, ...], number: int) -> Any:
    make: Any = importlib.import_module("lmms_eval.api.instance").Instance if INSTALLED else Instance
    return make(kind, arguments, number, {"task": "pope", "doc_id": number, "repeats": 1})


def image(number: int) -> Image.Image:
    return Image.new("L", (30, 20), number).convert("RGB")


@pytest.fixture
def model(lmms: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    def says(number: int, prompt: str) -> str:
        return f"{number} {prompt}\nand on"

    scripted = Scripted(lambda number, text: float(f"a {number}" in text), says)
    loaded = []
    monkeypatch.setattr(lmms, "load_checkpoint", lambda *where: loaded.append(where) or scripted)
    made = lmms.CurateModel.create_from_arg_string(
        "pretrained=runs/out", {"batch_size": "2", "device": None, "max_batch_size": 8}
    )
    assert loaded == [("runs/out", None)]
    made.task_dict = {"pope": {"test": [{"image": image(n), "answer": f"a {n}"} for n in range(5)]}}
    return made


def test_lmms_eval_generates(model: Any) -> None:
    options = {"until": ["\n"], "max_new_tokens": 16}
    requests = [
        request("generate_until", (f"<image>\nWhat is {n}?", options, _visuals, n, "pope", "test"), n) for n in range(5)
    ]
    assert model.generate_until(requests) == [f"{n} What is {n}?" for n in range(5)]


def test_lmms_eval_judges_texts(model: Any) -> None:
    requests = [
        request("loglikelihood", ("It is", target, _visuals, 3, "pope", "test"), n)
        for n, target in enumerate(["a 2", "a 3", lambda document: document["answer"]])
    ]
    assert model.loglikelihood(requests) == [(0.0, False), (1.0, False), (1.0, False)]


def test_lmms_eval_requests_without_an_image_are_refused(model: Any) -> None:
    blind = request("generate_until", ("What?", {}, lambda document: [], 0, "pope", "test"), 0)
    with pytest.raises(ValueError, match="need an image with each request"):
        model.generate_until([blind])
    with pytest.raises(NotImplementedError, match="answer once"):
        model.generate_until_multi_round([blind])


@pytest.mark.skipif(not INSTALLED, reason="lmms-eval is not installed")
def test_lmms_eval_finds_the_model() -> None:
    models = importlib.import_module("lmms_eval.models")
    registry = models.MODEL_REGISTRY_V2
    registry.register_manifest(importlib.import_module("trainer.adapters").lmms_eval_manifest(), overwrite=True)
    found = registry.get_model_class("curate")
    assert (found.__module__, found.__name__) == ("trainer.adapters.lmms_eval", "CurateModel")


def test_the_entry_point_leads_to_the_manifest() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module_name, _, function = project["entry-points"]["lmms_eval.models"]["curate"].partition(":")
    assert callable(getattr(importlib.import_module(module_name), function))


def test_vlmevalkit_generates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, members in {"vlmeval": {}, "vlmeval.vlm": {}, "vlmeval.vlm.base": {"BaseModel": object}}.items():
        monkeypatch.setitem(sys.modules, name, module(name, **members))
    monkeypatch.delitem(sys.modules, "trainer.adapters.vlmeval", raising=False)
    adapter = importlib.import_module("trainer.adapters.vlmeval")
    monkeypatch.setattr(adapter, "load_checkpoint", lambda *where: Scripted(says=lambda n, prompt: f"{n}: {prompt}"))
    image(9).save(tmp_path / "9.png")
    message = [
        {"type": "image", "value": str(tmp_path / "9.png")},
        {"type": "text", "value": "What is"},
        {"type": "text", "value": "it?"},
    ]
    model = adapter.CurateModel("runs/out")
    assert model.generate_inner(message) == "9: What is\nit?"
    with pytest.raises(ValueError, match="need an image"):
        model.generate_inner(message[1:])
    sys.modules.pop("trainer.adapters.vlmeval")


def _visuals(document: dict[str, Any]) -> list[Image.Image]:
    return [document["image"]]
