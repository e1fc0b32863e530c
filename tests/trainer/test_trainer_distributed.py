import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainer.scales import Scale
from trainer.train import train

SCRIPT = """
import json, os, sys
from pathlib import Path
from trainer.scales import Scale
from trainer.train import train
shards, out, scale = sys.argv[1:]
scale = json.loads(scale)
result = train(shards, out, scale=Scale(**scale), device="cpu")
Path(f"{out}-{os.environ['RANK']}.txt").write_text(f"{result.unique_samples} {result.keys}")
"""


def train_with_two_processes(shards: Path, out: Path, scale: Scale, script: Path) -> list[str]:
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    request = [str(script), str(shards), str(out), json.dumps(scale.as_dict())]
    done = subprocess.run([*torchrun, *request], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [Path(f"{out}-{rank}.txt").read_text() for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_train_one_model(colours: Path, tmp_path: Path, nano: Scale) -> None:
    # Without batch norm, whose statistics are per process, two halves of a batch are the whole batch.
    model = json.loads(json.dumps(nano.model))
    model["vision_cfg"] = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    scale = dataclasses.replace(nano, model=model, augment="none")
    train(colours, tmp_path / "one", scale=scale, device="cpu")
    results = train_with_two_processes(colours, tmp_path / "two", scale, tmp_path / "run.py")
    assert results[0] == results[1]
    one, two = (load_file(tmp_path / name / "checkpoint/open_clip_model.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-3, rtol=0)  # weights move by about 2e-2


@pytest.mark.slow
def test_two_processes_share_a_stream(colours: Path, tmp_path: Path, nano: Scale) -> None:
    scale = dataclasses.replace(nano, cache_bytes=0)
    alone = train(colours, tmp_path / "one", scale=nano, device="cpu")
    results = train_with_two_processes(colours, tmp_path / "two", scale, tmp_path / "run.py")
    assert set(results) == {f"40 {alone.keys}"}


EACH = """
import json, sys
import torch.distributed as dist
from trainer.scales import Scale
from trainer.train import train
shards, out, scale, families = sys.argv[1:]
dist.init_process_group("gloo")
for number, family in enumerate(json.loads(families)):
    train(shards, f"{out}-{number}", scale=Scale(**json.loads(scale)), family=family, device="cpu")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_with_micro_batches_train_as_one_without(colours: Path, tmp_path: Path, nano: Scale) -> None:
    model = json.loads(json.dumps(nano.model))
    model["vision_cfg"] = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    scale = dataclasses.replace(nano, model=model, augment="none", samples_seen=16 * 6)
    families = ["llip", {"name": "clip", "hard_negatives": True}, {"name": "siglip", "hard_negatives": True}]
    cut = json.dumps(dataclasses.replace(scale, accumulate=2).as_dict())
    script = tmp_path / "run.py"
    script.write_text(EACH)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    request = [str(script), str(colours), str(tmp_path / "two"), cut, json.dumps(families)]
    done = subprocess.run([*torchrun, *request], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for number, family in enumerate(families):
        train(colours, tmp_path / f"one-{number}", scale=scale, family=family, device="cpu")
        (a,), (b,) = ((tmp_path / f"{name}-{number}/checkpoint").glob("*.safetensors") for name in ("one", "two"))
        one, two = load_file(a), load_file(b)
        for name in one:
            if not name.endswith(
                "in_proj_bias"
            ):  # keys' biases have no gradient but rounding, which Adam makes much of
                torch.testing.assert_close(one[name], two[name], atol=1e-3, rtol=0, msg=f"{family}: {name}")
