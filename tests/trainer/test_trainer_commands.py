import json
from pathlib import Path

import pytest
from trainer_samples import COLOURS, TEMPLATES, jpeg

from curate.cli import run
from trainer import scales
from trainer.scales import Scale
from trainer.tasks.write import write_classification_task


@pytest.fixture(autouse=True)
def nano_scale(nano: Scale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scales.SCALES, "nano", nano)


def test_train_and_evaluate(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = write_classification_task(
        tmp_path / "task", [(jpeg(c), i) for i, c in enumerate(COLOURS.values())], list(COLOURS), TEMPLATES
    )
    request = ["train", str(colours), str(tmp_path / "out"), "--scale", "nano", "--seed", "2"]
    assert run(request) == 0
    assert "192 samples seen (each of 40 4.80 times)" in capsys.readouterr().out
    assert run([*request, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "out/train.json").read_text())

    results = tmp_path / "results.json"
    assert run(["evaluate", str(tmp_path / "out"), str(task), str(task), "-o", str(results)]) == 0
    assert capsys.readouterr().out.count("task: accuracy") == 2
    assert run(["evaluate", str(tmp_path / "out/checkpoint"), str(task), "--json"]) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    written = json.loads(results.read_text())["results"][0]
    assert printed == {name: value for name, value in written.items() if name not in ("keys", "scores")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "{tmp}/missing", "{tmp}/out"], "shards: {tmp}/missing does not exist"),
        (["train", "{colours}", "{tmp}/out", "--scale", "huge"], "scale: 'huge' is not one of tiny"),
        (["train", "{colours}", "{tmp}/out", "--scale", "nano", "--samples-seen", "3"], "less than a batch"),
        (["train", "{colours}", "{tmp}/out", "--scale", "nano", "--device", "tpu9"], "device: 'tpu9' cannot be used"),
        (["evaluate", "{tmp}/out", "{tmp}/task"], "checkpoint: {tmp}/out holds no"),
        (["evaluate", "{tmp}/out"], "Missing argument 'TASK...'"),
    ],
)
def test_a_wrong_request_is_one_line(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    places = {"tmp": str(tmp_path), "colours": str(colours)}
    assert run([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message.format(**places) in error


def test_another_request_in_the_same_out_is_refused(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ["train", str(colours), str(tmp_path / "out"), "--scale", "nano"]
    assert run(request) == 0
    assert run([*request, "--seed", "1"]) == 2
    assert "another training: seed (0 there, 1 now)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--family", "gan"], "family: 'gan' is not one of"),
        (["--option", "depth=3"], "family: clip has no option 'depth'"),
        (["--option", "depth"], "--option: 'depth' is not NAME=VALUE"),
    ],
)
def test_a_wrong_family_is_one_line(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert run(["train", str(colours), str(tmp_path / "out"), *flags]) == 2
    assert message in capsys.readouterr().err
