"""Lets other projects' evaluation suites ask our models: a file for each."""

from __future__ import annotations

from typing import Any


def lmms_eval_manifest() -> Any:
    """What lmms-eval's entry point `lmms_eval.models` asks for: the model `curate`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="curate", simple_class_path="trainer.adapters.lmms_eval.CurateModel")
