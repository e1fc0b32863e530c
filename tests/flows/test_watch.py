"""What is watched from run to run, and the experiment of a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import flows.watch
from curate.storage import Folder
from flows.experiment import load_experiment
from flows.pipeline import experiment_on
from flows.watch import ACCURACY, watch_accuracy


def result(**values: float) -> dict[str, Any]:
    arms = [{"name": name, "value": value, "interval": [value - 0.02, value + 0.02]} for name, value in values.items()]
    return {"name": "proof", "arms": arms}


def test_accuracies_are_a_table_over_runs_of_an_experiment_in_which_each_stands_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, Any] = {}
    monkeypatch.setattr(flows.watch, "create_table_artifact", lambda table, key, **_: shown.update({key: table}))
    history = Folder(str(tmp_path))
    watch_accuracy(history, "monday", result(raw=0.3, recipe=0.4))
    watch_accuracy(history, "tuesday", {"name": "proof", "arms": [{"name": "raw", "value": 0.31, "interval": None}]})
    watch_accuracy(history, "monday", result(raw=0.3, recipe=0.41))  # started again
    watch_accuracy(history, "else", {"name": "another", "arms": [{"name": "x", "value": 0.9, "interval": None}]})
    (tmp_path / ACCURACY).write_text((tmp_path / ACCURACY).read_text() + "no json\n")
    watch_accuracy(history, "wednesday", result(raw=0.32))
    rows = [{name: value for name, value in row.items() if name != "at"} for row in shown["accuracy-trend"]]
    assert rows == [
        {"out": "monday", "raw": "30.0% [28.0%, 32.0%]", "recipe": "41.0% [39.0%, 43.0%]"},
        {"out": "tuesday", "raw": "31.0%"},
        {"out": "wednesday", "raw": "32.0% [30.0%, 34.0%]"},
    ]


def test_an_experiment_is_the_same_but_on_the_pool_that_was_acquired(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    arms = {"half": {"set": "random_subset.fraction=0.5"}, "theirs": {"recipe": "datacomp-basic"}}
    file.write_text(yaml.safe_dump({"pool": "old", "cache": "c", "tasks": ["a", "b"], "arms": arms, "seeds": [3, 4]}))
    written = load_experiment(experiment_on(str(file), str(tmp_path)))
    assert written == load_experiment(str(file)).model_copy(update={"pool": f"{tmp_path}/pool", "cache": None})
