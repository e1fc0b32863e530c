"""`curate evaluate` prints shares as percentages and other numbers as they are."""

import json
from pathlib import Path

import pytest
from task_models import Scripted, picture, write_jsonl

from curate.cli import run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    texts = ["two cats on a mat", "a dog runs in the snow"]
    model = Scripted(lambda n, text: float(n == 0), lambda n, prompt: texts[n], lambda n, phrase: (0, 0, 0.5, 1))
    monkeypatch.setattr("trainer.evaluate.load_checkpoint", lambda checkpoint, device: model)
    items = [{"image": picture(n), "captions": [text]} for n, text in enumerate(texts)]
    write_jsonl(tmp_path / "captions", {"kind": "captioning"}, [*items, {"caption": "no image"}])
    boxes = [{"image": picture(n), "phrase": "it", "box": [0, 0, 0.5 + n / 2, 1]} for n in (0, 1)]
    write_jsonl(tmp_path / "boxes", {"kind": "grounding"}, boxes)
    pairs = [item | {"trained": n == 0} for n, item in enumerate(items)]
    write_jsonl(tmp_path / "remembered", {"kind": "memorisation"}, pairs)
    return tmp_path


def test_what_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [str(folder / name) for name in ("captions", "boxes", "remembered")]
    assert run(["evaluate", "checkpoint", "--tasks", *tasks]) == 0
    captions, skipped, boxes, remembered = capsys.readouterr().out.splitlines()
    assert captions.startswith(
        "captions: cider 10.000 (95 % interval 10.000 to 10.000), rouge_l 100.0%, bleu_4 100.0%, "
    )
    assert skipped == "  skipped 1: no image"
    assert boxes.startswith(
        "boxes: iou_0.5 100.0% (95 % interval 34.2% to 100.0%), mean_iou 0.750, named 100.0%, 2 items"
    )
    assert remembered.startswith("remembered: auc 1.000 (95 % interval 0.207 to 1.000), held_out_pairs 1, 1 items")


def test_what_a_script_reads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "checkpoint", str(folder / "boxes"), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["metrics"] == {"iou_0.5": 1.0, "mean_iou": 0.75, "named": 1.0}
    assert result["numbers"] == ["mean_iou"]


def test_no_task_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "checkpoint"]) == 2
    assert "Missing argument 'TASK...'" in capsys.readouterr().err
