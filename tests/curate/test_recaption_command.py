"""`curate recaption` from end to end, on real tar files, with backends that count what they are asked."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import yaml

from curate.cli import run
from curate.shards import read_samples
from tests.conftest import Pair, encoded, members, messy_pairs, pair, photo, write_pool

PARROT, REWRITER = (f"tests.curate.recaption_stand_ins:{name}" for name in ("Parrot", "Rewriter"))
ODD = {"tests.curate.recaption_stand_ins:Odd": {"begins": ["a", "b"]}}


def settings(folder: Path, name: str = "r.yaml", backend: str = PARROT, parrot: dict | None = None, **more: Any) -> str:
    raw = {"backend": {backend: parrot or {}}, "checks": [], "mix": {"choice": "replace"}} | more
    (folder / name).write_text(yaml.safe_dump(raw))
    return str(folder / name)


def recaption(pool: Path, out: Path, file: str, *more: str) -> int:
    return run(["recaption", str(pool), str(out), "-r", file, "--workers", "1", *more])


def everything(out: Path) -> dict[str, bytes]:
    """The bytes of a dataset, but for the manifest, which tells of the run."""
    return {str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file()
            and f.name not in ("manifest.json", "report.html")}  # fmt: skip


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def names(pool: Path) -> list[str]:
    found = []
    for path in sorted(pool.rglob("*.tar")):
        with tarfile.open(path) as tar:
            found += [f"{path.name} {member.name}" for member in tar]
    return found


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool") / "pool", messy_pairs())


def test_every_sample_is_there_again_and_every_caption_is_told_of(pool: Path, tmp_path: Path) -> None:
    file = settings(tmp_path, candidates="width >= 64", samples_per_image=2, checks=[ODD],
                    parrot={"wrong": ["1"]}, mix={"choice": "ratio", "ratio": 0.5})  # fmt: skip
    out = tmp_path / "out"
    assert recaption(pool, out, file) == 0
    before, after = members(pool), members(out / "shards")
    assert {n for n in after if not n.endswith(".json")} == {*before, "115-nocaption.txt"}
    assert all(after[name] == data for name, data in before.items() if not name.endswith(".txt"))
    order = [name for name in names(out / "shards") if not name.endswith(".json") and "115-nocaption.txt" not in name]
    assert order == names(pool)
    rows = pq.read_table(out / "captions.parquet").to_pylist()
    assert [row["number"] for row in rows] == [-1, 0, 1] * (len(rows) // 3)
    for row in rows:
        key, texts = row["key"], after[f"{row['key']}.txt"].decode()
        details = json.loads(after[f"{key}.json"]) if f"{key}.json" in after else {}
        said = {caption["caption"]: caption for caption in details.get("captions", [])}
        assert row["chosen"] == (row["caption"] in said)
        assert row["text"] <= (texts == row["caption"])
        if row["chosen"]:
            assert {name: row[name] for name in ("source", "model", "prompt", "seed")}.items() <= said[
                row["caption"]
            ].items()
            assert details["uid"] == row["uid"]
            own = before.get(f"{key}.txt")
            assert details["original_caption"] == (own.decode() if own is not None else None)
        assert (row["caption"] is None) == (row["error"] is not None)
        assert (row["check"] is None) or (row["caption"].split()[2][0] in "ab" and not row["chosen"])
    counts = manifest(out)["counts"]
    written = [row for row in rows if row["number"] >= 0]
    assert counts["samples"] == 40 and counts["candidates"] * 2 == len(written) == counts["requests"]
    assert counts["written"] + sum(counts["failed"].values()) == counts["requests"]
    assert counts["passed"] + sum(counts["refused"].values()) == counts["written"]
    assert counts["replaced"] + sum(counts["kept"].values()) == counts["candidates"]
    assert counts["failed"] == {"image cannot be decoded": sum(row["error"] is not None for row in written)}
    assert counts["cost"] == pytest.approx(0.02 * counts["written"]) and counts["tokens"]["out"] > 0
    untouched = {row["key"] for row in rows} ^ {item.key for item in messy_pairs()}
    assert untouched == {"102-small", "112-text", "113-empty", "114-noimage"}
    assert not any(f"{key}.json" in after for key in untouched)


def test_the_same_bytes_whatever_the_workers_and_the_order_of_answers(pool: Path, tmp_path: Path) -> None:
    outs = {}
    for name, parrot, more in (("one", {}, "1"), ("two", {"backwards": True, "style": "plain"}, "2")):
        file = settings(tmp_path, f"{name}.yaml", parrot=parrot, samples_per_image=2)
        command = ["recaption", str(pool), str(tmp_path / name), "-r", file, "--workers", more]
        assert run([*command, "--cache", str(tmp_path / f"cache-{name}")]) == 0
        outs[name] = everything(tmp_path / name)
    assert outs["one"] == outs["two"] and len(outs["one"]) == 11


def test_killed_and_resumed_nothing_is_lost_and_nothing_asked_twice(tmp_path: Path) -> None:
    pool, log = write_pool(tmp_path / "pool", [pair(n) for n in range(20)]), tmp_path / "log"
    dying = settings(tmp_path, "dying.yaml", parrot={"log": str(log), "dies_after": 7})
    command = [sys.executable, "-m", "curate.cli", "recaption", str(pool), str(tmp_path / "out"), "--workers", "1"]
    for _ in range(2):
        done = subprocess.run([*command, "-r", dying], check=False, capture_output=True)
        assert done.returncode == -signal.SIGKILL
    journal = next((pool / "_features" / "_captions").rglob("00001.jsonl"))
    with journal.open("ab") as file:
        file.write(b'{"id": "torn')
    assert recaption(pool, tmp_path / "out", settings(tmp_path, parrot={"log": str(log)})) == 0
    asked = [line.split()[0] for line in log.read_text().splitlines()]
    assert len(asked) == 20 and max(Counter(asked).values()) == 1
    again = settings(tmp_path, "whole.yaml")
    assert recaption(pool, tmp_path / "whole", again, "--cache", str(tmp_path / "cache")) == 0
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")


def test_what_failed_for_now_is_asked_again_by_the_same_command(tmp_path: Path) -> None:
    pool, log = write_pool(tmp_path / "pool", [pair(n) for n in range(20)]), tmp_path / "log"
    failing = {"log": str(log), "fails": list("01234567"), "wrong": ["8", "9"]}
    assert recaption(pool, tmp_path / "out", settings(tmp_path, parrot=failing)) == 0
    failed = manifest(tmp_path / "out")["counts"]["ask_again"]
    assert 0 < failed < 20 and len(log.read_text().splitlines()) == 20
    better = settings(tmp_path, "better.yaml", parrot={"log": str(log), "wrong": ["8", "9"]})
    assert recaption(pool, tmp_path / "out", better) == 0
    assert len(log.read_text().splitlines()) == 20 + failed
    assert manifest(tmp_path / "out")["counts"]["ask_again"] == 0
    assert recaption(pool, tmp_path / "out", better) == 0
    assert len(log.read_text().splitlines()) == 20 + failed
    assert recaption(pool, tmp_path / "whole", better, "--cache", str(tmp_path / "cache")) == 0
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")


def test_another_mix_or_more_samples_use_what_was_written(tmp_path: Path) -> None:
    pool, log = write_pool(tmp_path / "pool", [pair(n) for n in range(10)]), tmp_path / "log"
    parrot = {"log": str(log)}
    assert recaption(pool, tmp_path / "a", settings(tmp_path, parrot=parrot)) == 0
    ratio = settings(tmp_path, "b.yaml", parrot=parrot, mix={"choice": "ratio", "ratio": 0.3}, checks=[ODD])
    assert recaption(pool, tmp_path / "b", ratio) == 0
    assert len(log.read_text().splitlines()) == 10
    assert recaption(pool, tmp_path / "c", ratio, "--set", "samples_per_image=2") == 0
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [number for _, number, _, _ in lines] == ["0"] * 10 + ["1"] * 10
    assert len({seed for *_, seed in lines}) == 20
    assert recaption(pool, tmp_path / "d", ratio, "--set", "seed=1", "--set", "candidates=caption is null") == 0
    assert manifest(tmp_path / "d")["counts"]["candidates"] == 0 and len(log.read_text().splitlines()) == 20
    assert members(tmp_path / "d" / "shards") == members(pool)


def test_a_dry_run_asks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, log = write_pool(tmp_path / "pool", [pair(n) for n in range(10)]), tmp_path / "log"
    file = settings(tmp_path, parrot={"log": str(log)}, candidates="caption like '%number 7%'")
    assert recaption(pool, tmp_path / "out", file) == 0
    assert run(["recaption", str(pool), "-r", file, "--dry-run", "--set", "samples_per_image=3", "--workers", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 candidates; 2 captions to ask parrot for, 1 known"
    assert len(log.read_text().splitlines()) == 1
    assert run(["recaption", str(pool), "-r", file]) == 2


def test_what_a_curation_dropped_gets_another_chance(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("filters: [{image_size: {min_side: 64}}, caption_rules, language]\n")
    command = ["filter", str(pool), str(tmp_path / "curated"), "-r", str(tmp_path / "recipe.yaml"), "--workers", "1"]
    assert run(command) == 0
    verdicts = pq.read_table(tmp_path / "curated" / "selection.parquet").to_pylist()
    dropped = {row["key"] for row in verdicts if row["filter"] in ("language", "caption_rules")}
    file, said = settings(tmp_path), ["--of", str(tmp_path / "curated")]
    assert recaption(pool, tmp_path / "out", file, "--dropped-by", "language,caption_rules", *said) == 0
    rows = pq.read_table(tmp_path / "out" / "captions.parquet")
    assert set(rows["key"].to_pylist()) == dropped == {"106-german", "107-short", "108-digits"}
    assert recaption(pool, tmp_path / "out", file, "--dropped-by", "beauty", *said) == 2
    assert run([*command, "--overwrite", "--set", "image_size.min_side=32"]) == 0  # other verdicts: another request
    assert recaption(pool, tmp_path / "out", file, "--dropped-by", "language,caption_rules", *said) == 2


def test_captions_from_captions_alone(pool: Path, tmp_path: Path) -> None:
    file = settings(tmp_path, backend=REWRITER, candidates="caption_words = 1")
    assert recaption(pool, tmp_path / "out", file) == 0
    before, after = members(pool), members(tmp_path / "out" / "shards")
    assert {n for n in before if after[n] != before[n]} == {"107-short.txt"}
    assert after["107-short.txt"] == b"rewritten: photo"


def test_a_pool_on_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_SPOOL", str(tmp_path / "spool"))
    pool = write_pool(tmp_path / "pool", [pair(n) for n in range(12)])
    store = fsspec.filesystem("memory")
    store.put(str(pool), "/recaption-pool", recursive=True)
    file = settings(tmp_path, candidates="caption like '%number 7%'")
    command = ["recaption", "memory://recaption-pool", "memory://recaption-out", "-r", file, "--workers", "1"]
    assert run(command) == 0
    assert recaption(pool, tmp_path / "here", file) == 0
    for name, data in everything(tmp_path / "here").items():
        assert store.cat_file(f"/recaption-out/{name}") == data


def test_damaged_shards_are_copied_as_they_are(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", [pair(n) for n in range(16)])
    torn = (pool / "00001.tar").read_bytes()[:40_000]
    (pool / "00001.tar").write_bytes(torn)
    (pool / "00002.tar").write_bytes(b"no tar at all")
    (pool / "00003.tar").write_bytes(b"")
    assert recaption(pool, tmp_path / "out", settings(tmp_path)) == 0
    after = tmp_path / "out" / "shards"
    assert (after / "00002.tar").read_bytes() == b"no tar at all" and (after / "00003.tar").read_bytes() == b""
    samples = list(read_samples(str(after / "00001.tar")))
    before = list(read_samples(str(pool / "00001.tar")))
    assert [s.key for s in samples] == [s.key for s in before] and samples[-1].error and before[-1].error
    lost = before[-1]
    assert (after / "00001.tar").read_bytes().endswith(torn[lost.offset :])
    assert all(s.text.startswith("plain picture") for s in samples[:-1] if s.text)


def test_a_name_twice_and_one_uid_twice(tmp_path: Path) -> None:
    same = [Pair("a", encoded(photo(n)), f"picture {n}", details={"uid": "same"}) for n in range(2)]
    pool = write_pool(tmp_path / "pool", [same[0], pair(1), same[1], pair(2)], 2)
    assert recaption(pool, tmp_path / "out", settings(tmp_path, parrot={"backwards": True})) == 0
    for shard in sorted((tmp_path / "out" / "shards").glob("*.tar")):
        assert all(s.text and s.text.startswith("plain picture") for s in read_samples(str(shard)))


@pytest.mark.parametrize(("change", "said"), [
    ("candidates=beauty > 3", "'beauty', which no feature measures"),
    ("candidates=width >", "candidates: 'width >' cannot be read"),
    ("candidates=caption > 3", "compares what cannot be compared"),
    ("backend=nobody", "no backend 'nobody'; there are"),
    ("backend.tests.size=3", "backend"),
    ("mix.choice=best", "mix.choice: best needs a scorer"),
    ("mix.ratio=1.5", "mix.ratio"),
    ("samples_per_image=0", "samples_per_image"),
    ("prompts=[]", "prompts"),
    ("checks=[nothing]", "no check 'nothing'"),
    ("checks.nothing.x=1", "there is no 'nothing'"),
    ("seed", "write it as PATH=VALUE"),
    ("colour=red", "colour"),
    ("dropped={of: nowhere, by: x}", "nowhere holds no manifest.json"),
])  # fmt: skip
def test_a_wrong_request_is_told_of_in_one_line(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, said: str
) -> None:
    assert recaption(pool, tmp_path / "out", settings(tmp_path), "--set", change) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("curate:")]
    assert len(error) == 1 and said in error[0]
    assert not (tmp_path / "out").exists()


def test_another_request_does_not_overwrite(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = settings(tmp_path, candidates="caption_words = 1")
    assert recaption(pool, tmp_path / "out", file) == 0
    assert recaption(pool, tmp_path / "out", file, "--set", "seed=1") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert recaption(pool, tmp_path / "out", file, "--set", "seed=1", "--overwrite") == 0
    assert recaption(pool, pool / "inside", file) == 2


def test_a_backend_that_is_down_fails_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_pool(tmp_path / "pool", [pair(n) for n in range(4)])
    down = settings(tmp_path, parrot={"fails": list("0123456789abcdef")})
    assert recaption(pool, tmp_path / "out", down) == 1
    assert "server is down" in capsys.readouterr().err and not (tmp_path / "out" / "manifest.json").exists()


def test_killed_while_writing_only_what_is_missing_is_written_again(tmp_path: Path) -> None:
    pool, out = write_pool(tmp_path / "pool", [pair(n) for n in range(24)]), tmp_path / "out"
    assert recaption(pool, out, settings(tmp_path)) == 0
    whole, made = everything(out), (out / "shards" / "00000.tar").stat().st_ino
    (out / "manifest.json").unlink()
    (out / "_written" / "00001.json").unlink()
    (out / "shards" / "00001.tar").write_bytes(b"half of it")
    (out / "shards" / "00009.tar").write_bytes(b"of another run")
    assert recaption(pool, out, settings(tmp_path)) == 0
    assert everything(out) == whole and (out / "shards" / "00000.tar").stat().st_ino == made


def test_a_backend_that_breaks_is_told_of_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken_backend.py").write_text(
        "from tests.curate.recaption_stand_ins import Parrot\n"
        "class Broken(Parrot):\n"
        "    def write(self, requests):\n"
        "        yield from Parrot.write(self, [next(iter(requests))])\n"
        "        raise KeyError('a bug')\n"
    )
    pool = write_pool(tmp_path / "pool", [pair(n) for n in range(4)])
    assert recaption(pool, tmp_path / "out", settings(tmp_path, backend="broken_backend:Broken")) == 1
    assert "curate: backend parrot failed: KeyError: 'a bug'; what it answered is kept" in capsys.readouterr().err
    assert sum(1 for _ in next((pool / "_features" / "_captions").rglob("*.jsonl")).open()) == 1
