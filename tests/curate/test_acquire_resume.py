"""curate download: retries, wrong files, damaged shards, kills, and what it says about attrition."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.acquire.attrition import agresti_min, newcombe, shift, statuses
from curate.acquire.download import DownloadLimits, DownloadReport, download
from curate.acquire.header import wrong_hash
from curate.acquire.pairs import pair_uid
from curate.acquire.wanted import load_pairs, table_digest
from curate.cli import run
from curate.errors import RequestError, WorkError
from tests.curate.hostile import HostileServer, jpeg, serving

LIMITS = DownloadLimits(allow_private=True, retries=2, retry_pause=0.05, processes=1, samples_per_shard=4, threads=4)


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with serving() as server:
        yield server


def write_pairs(path: Path, urls: list[str], **columns: list) -> Path:
    pq.write_table(pa.table({"url": urls, "caption": [f"caption {n}" for n in range(len(urls))], **columns}), path)
    return path


def contents(pool: Path) -> dict[str, bytes]:
    """Tars and tables; not the stats, which hold times."""
    return {p.name: p.read_bytes() for p in sorted(pool.iterdir()) if p.suffix in (".tar", ".parquet")}


def samples(pool: Path) -> list[dict]:
    found = []
    for path in sorted(pool.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [orjson.loads(tar.extractfile(m).read()) for m in tar if m.name.endswith(".json")]  # type: ignore[union-attr]
    return found


def test_a_host_that_asks_to_wait_is_asked_again_after_that(tmp_path: Path) -> None:
    with serving() as server:
        urls = [f"{server.origin}/busy?{n}" for n in range(6)]
        started = time.monotonic()
        report = download(write_pairs(tmp_path / "p", urls), tmp_path / "pool", LIMITS)
        assert (report.downloaded, report.downloaded_by_retry, report.rounds) == (6, 6, 2)
        assert time.monotonic() - started > 1.0
        stats = json.loads((tmp_path / "pool" / "00000_stats.json").read_text())
        assert stats["status_dict"] == {"http_4xx": 4}
        first = pq.read_table(tmp_path / "pool" / "00000.parquet")["error_message"].to_pylist()
        assert set(first) == {"http_4xx: 429, retry after 1 s"}

        urls = [f"{server.origin}/busy-long?{n}" for n in range(6)] + ["http://no-such-host.invalid/"]
        report = download(write_pairs(tmp_path / "p2", urls), tmp_path / "long", LIMITS)
        assert (report.failed, report.held_off, report.rounds) == ({"http_5xx": 6, "dns": 1}, 6, 1)
        assert server.asked["/busy-long"] <= LIMITS.threads  # those that were on their way


def test_only_the_file_that_the_pair_names_arrives(server: HostileServer, tmp_path: Path) -> None:
    good = hashlib.sha256(jpeg()).hexdigest()
    hashes = [good, good.upper(), "0" * 64, None, "", "no hash"]
    md5 = ["0" * 32, None, None, hashlib.md5(jpeg()).hexdigest(), "1" * 32, None]
    urls = [f"{server.origin}/good.jpg?hash={n}" for n in range(6)]
    pairs = write_pairs(tmp_path / "p", urls, sha256=hashes, md5=md5)
    report = download(pairs, tmp_path / "pool", replace(LIMITS, samples_per_shard=10))
    assert (report.downloaded, report.failed, report.rounds) == (3, {"wrong_hash": 3}, 1)
    table = pq.read_table(tmp_path / "pool" / "00000.parquet").to_pylist()
    assert [row["status"] == "success" for row in table] == [True, True, False, True, False, False]
    assert [row["error_message"] for row in table if row["error_message"]] == [
        f"wrong_hash: sha256 {good}",
        f"wrong_hash: md5 {md5[3]}",
        "wrong_hash: the pair's is no sha256 in hex",
    ]
    assert [sample["sha256"] for sample in samples(tmp_path / "pool")] == [good] * 3
    assert wrong_hash(b"", "crc32:00") == "wrong_hash: the pair's is no crc32 in hex"


def test_the_columns_of_a_crawl_and_those_asked_for_go_along(server: HostileServer, tmp_path: Path) -> None:
    columns = {
        "page_url": ["http://a.example/", None],
        "page_language": ["en", None],
        "page_licence": ["https://creativecommons.org/licenses/by/4.0/", None],
        "width_attribute": pa.array([640, None], pa.int32()),
        "similarity": [0.25, float("nan")],
        "tags": [["a", "b"], None],
        "left": ["behind", "behind"],
    }
    pairs = write_pairs(tmp_path / "p", [f"{server.origin}/good.jpg?{n}" for n in range(2)], **columns)
    limits = replace(LIMITS, columns=("similarity", "tags"))
    download(pairs, tmp_path / "pool", limits)
    first, second = samples(tmp_path / "pool")
    licence = "https://creativecommons.org/licenses/by/4.0/"
    assert (first["page_licence"], first["width_attribute"], first["similarity"]) == (licence, 640, 0.25)
    assert (first["page_url"], first["page_language"], first["tags"]) == ("http://a.example/", "en", '["a", "b"]')
    assert [second[name] for name in ("page_licence", "width_attribute", "similarity", "tags")] == [None] * 4
    table = pq.read_table(tmp_path / "pool" / "00000.parquet")
    assert {"page_url", "page_language", "page_licence", "width_attribute", "similarity"} <= set(table.column_names)
    assert "left" not in table.column_names and table.schema.field("similarity").type == pa.float64()
    with pytest.raises(RequestError, match="'width' is a column that the pool has of its own"):
        download(
            write_pairs(tmp_path / "q", ["http://a.example/"], width=[1]),
            tmp_path / "x",
            replace(LIMITS, columns=("width",)),
        )
    with pytest.raises(RequestError, match="no column 'nsfw'"):
        download(pairs, tmp_path / "x", replace(LIMITS, columns=("nsfw",)))


@pytest.fixture(scope="module")
def whole(server: HostileServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, DownloadReport]:
    """Pairs, their pool of 3 + 1 shards (the third has no image), and its report: 9 of 11 arrive, one by retry."""
    folder = tmp_path_factory.mktemp("whole")
    paths = [*(f"/good.jpg?{n}" for n in range(8)), "/missing", "/broken", "/busy?once"]
    pairs = write_pairs(folder / "pairs.parquet", [server.origin + path for path in paths])
    limits = replace(LIMITS, retries=1, retry_pause=1.0)
    return pairs, folder / "pool", download(pairs, folder / "pool", limits)


def copy(pool: Path, source: str, target: str, *endings: str) -> None:
    for ending in endings:
        (pool / f"{target}{ending}").write_bytes((pool / f"{source}{ending}").read_bytes())


DAMAGE = {
    "a tar that was cut off": lambda pool: os.truncate(pool / "00000.tar", 5000),
    "a tar that is gone": lambda pool: (pool / "00001.tar").unlink(),
    "a table that is gone": lambda pool: (pool / "00001.parquet").unlink(),
    "the table of another shard": lambda pool: copy(pool, "00002", "00000", ".parquet"),
    "a shard of other pairs": lambda pool: copy(pool, "00000", "00001", ".tar", ".parquet", "_stats.json"),
    "stats that are no JSON": lambda pool: (pool / "00003_stats.json").write_text("{"),
    "a shard that was never finished": lambda pool: (pool / "00002_stats.json").unlink(),
}


def test_damaged_shards_are_made_again_and_no_others(
    whole: tuple[Path, Path, DownloadReport], server: HostileServer, tmp_path: Path
) -> None:
    pairs, pool, report = whole
    before = contents(pool)
    limits = replace(LIMITS, retries=1, retry_pause=1.0)
    assert report.rounds == 2 and report.failed == {"http_4xx": 1, "http_5xx": 1} and report.downloaded == 9
    for what, damage in DAMAGE.items():
        damage(pool)
        if "other" in what or "stats" in what or "never" in what:
            (pool / "download.json").unlink()  # as the sizes that it knows are right, or can be by chance
        asked = server.asked.total()
        again = download(pairs, pool, limits)
        assert (again.downloaded, again.failed, again.rounds) == (report.downloaded, report.failed, 2), what
        assert {n: d for n, d in contents(pool).items() if n.endswith(".tar")} == {
            n: d for n, d in before.items() if n.endswith(".tar")
        }, what
        assert 1 <= server.asked.total() - asked <= 4, what
        assert again.redone == (0 if "never" in what else 1), what
    assert [row["uid"] for row in samples(pool)] == list(dict.fromkeys(row["uid"] for row in samples(pool)))


def test_bytes_that_changed_are_found_when_asked_for(whole: tuple[Path, Path, DownloadReport]) -> None:
    pairs, pool, _ = whole
    limits = replace(LIMITS, retries=1, retry_pause=1.0)
    before = (pool / "00000.tar").read_bytes()
    (pool / "00000.tar").write_bytes(before[:700] + b"!" + before[701:])
    assert download(pairs, pool, limits).redone == 0  # of the same size, and not read
    assert download(pairs, pool, replace(limits, verify=True)).redone == 1
    assert (pool / "00000.tar").read_bytes() == before


def test_more_retries_go_on_and_a_second_run_is_kept_out(
    whole: tuple[Path, Path, DownloadReport], server: HostileServer
) -> None:
    import fcntl

    pairs, pool, report = whole
    asked = server.asked["/good.jpg"]
    again = download(pairs, pool, replace(LIMITS, retries=2))
    assert (again.rounds, again.failed, again.shards) == (3, report.failed, report.shards)
    assert server.asked["/good.jpg"] == asked
    with (pool / ".download" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(WorkError, match="another curate download is at work"):
            download(pairs, pool, replace(LIMITS, retries=3))


def test_a_killed_download_resumes_to_the_same_bytes(server: HostileServer, tmp_path: Path) -> None:
    urls = [f"{server.origin}/good.jpg?{n}" for n in range(40)]
    urls[20:24] = [f"{server.origin}/drip?{n}" for n in range(4)]  # the sixth shard takes its time
    pairs = write_pairs(tmp_path / "p", urls)
    limits = replace(LIMITS, retries=0, timeout=1.0, total_timeout=1.0)
    download(pairs, tmp_path / "one", limits)

    command = [sys.executable, "-m", "curate.cli", "download", str(pairs), str(tmp_path / "two"), "--allow-private"]
    command += ["--retries", "0", "--processes", "1", "--threads", "4", "--samples-per-shard", "4"]
    killed = subprocess.Popen([*command, "--timeout", "60"], start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "two" / "00004_stats.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children(killed.pid)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert (tmp_path / "two" / "00004_stats.json").exists() and workers
    while any(Path(f"/proc/{pid}").exists() for pid in workers):  # they do not outlive it
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = contents(tmp_path / "two")
    assert 5 <= sum(name.endswith(".tar") for name in done) < 9
    report = download(pairs, tmp_path / "two", limits)
    assert report.downloaded == 36 and report.failed == {"timeout": 4}
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert [path.name for path in (tmp_path / "two" / ".download").glob("tmp*")] == []


def children(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            waiting += map(int, task.read_text().split())
        found += [one]
    return found[1:]


def test_the_account_says_how_well_and_how_fast(
    whole: tuple[Path, Path, DownloadReport], capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, pool, report = whole
    assert report.success_rate == round(9 / 11, 6)
    assert report.bytes == sum(path.stat().st_size for path in pool.glob("*.tar"))
    assert report.images_per_second > 0 and report.bytes_per_second > 0
    account = json.loads((pool / "download.json").read_text())
    assert account["success_rate"] == report.success_rate and account["files"]["00000.tar"] > 0
    command = ["download", str(pairs), str(pool), "--allow-private", "--retries", "1", "--samples-per-shard", "4"]
    assert run(command) == 0
    out = capsys.readouterr().out
    assert "9 of 11 images (81.8 %) downloaded in 3 shards at" in out
    assert "failed: http_4xx 1, http_5xx 1" in out


def test_failures_in_one_host_are_a_warning_and_failures_at_random_are_none() -> None:
    hosts = pa.chunked_array([["big"] * 500, ["dead"] * 100 + ["other"] * 400])
    dead = np.zeros(1000, bool)
    dead[500:590] = True
    found = shift("host", hosts, dead)
    assert found.shift == pytest.approx(0.1 - 10 / 910) and found.by_chance < 0.02 and found.beyond
    assert found.lost == (("dead", 0.1, 10 / 910),)
    assert "dead (10.0 % -> 1.1 %)" in (found.warning() or "")
    for seed in range(50):  # as many failures, anywhere
        anywhere = np.random.default_rng(seed).permutation(dead)
        assert shift("host", hosts, anywhere).warning() is None
    many = pa.chunked_array([[f"host-{number // 2}" for number in range(2000)]])  # hosts of two pairs each
    random = np.random.default_rng(0).random(2000) < 0.3
    assert shift("host", many, random).warning() is None  # although nearly a tenth of them is gone
    assert shift("host", many, np.repeat(random[:1000], 2)).beyond


def test_intervals() -> None:
    """Newcombe's examples a and d (1998, table II, method 10), and Agresti and Min's of table 1 (2005)."""
    assert newcombe(56, 70, 48, 80) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert newcombe(5, 56, 0, 29) == pytest.approx((0.0893, -0.0381, 0.1926), abs=5e-5)
    assert newcombe(0, 0, 1, 2) == (0.0, -1.0, 1.0)
    points, low, high = agresti_min(0, 0, 100)
    assert points == 0 and low == -high and 0.01 < high < 0.03
    assert agresti_min(100, 0, 100)[1] > 0.9


def test_an_earlier_pool_of_the_same_pairs(server: HostileServer, tmp_path: Path) -> None:
    good = [f"{server.origin}/good.jpg?{n}" for n in range(60)]
    later = [*good[:40], *(f"{server.origin}/missing?{n}" for n in range(20))]
    uids = [f"pair-{n}" for n in range(60)]
    limits = replace(LIMITS, samples_per_shard=100, retries=0)
    earlier = tmp_path / "earlier"
    download(write_pairs(tmp_path / "p", good, uid=uids), earlier, limits)
    against = replace(limits, compare_with=(str(earlier),))
    pairs = write_pairs(tmp_path / "q", later, uid=uids)
    assert not download(pairs, tmp_path / "later", limits).compared
    asked = server.asked.total()
    report = download(pairs, tmp_path / "later", against)  # finished, but not compared yet
    assert server.asked.total() == asked
    (compared,) = report.compared
    assert (compared["common"], compared["only_here"], compared["only_there"]) == (60, 0, 20)
    assert (compared["rate"], compared["earlier_rate"]) == (pytest.approx(2 / 3), 1.0)
    assert compared["low"] < -1 / 3 < compared["high"] < -0.15
    assert len(report.warnings) == 1 and "66.7 % against 100.0 % of 60 common pairs" in report.warnings[0]
    assert json.loads((tmp_path / "later" / "download.json").read_text())["warnings"] == list(report.warnings)
    assert sum(statuses(str(tmp_path / "later"))["arrived"].to_pylist()) == 40

    other = write_pairs(tmp_path / "r", good, uid=[f"other-{n}" for n in range(60)])
    report = download(other, tmp_path / "other", against)
    assert report.compared[0]["common"] == 0 and not report.warnings
    with pytest.raises(RequestError, match="nowhere does not exist"):
        download(other, tmp_path / "x", replace(limits, compare_with=(str(tmp_path / "nowhere"),)))


@pytest.mark.parametrize(
    ("given", "wanted", "rows"),
    [
        ([None, "x", "", "x", "y"], [None, "x", None, "y"], [0, 1, 2, 4]),
        ([7, 7, None, 3, 7], ["7", None, "3"], [0, 2, 3]),
        (None, [None] * 5, [0, 1, 2, 3, 4]),
    ],
)
def test_pairs_without_a_uid_get_one_and_each_uid_counts_once(
    given: list | None, wanted: list, rows: list[int], tmp_path: Path
) -> None:
    urls = [f"http://e.com/{name}" for name in "abcde"]
    columns = {"url": urls, "caption": ["c"] * 5, **({"uid": given} if given else {})}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet", row_group_size=2)
    table, repeated, _ = load_pairs(str(tmp_path / "p.parquet"), "url", "caption", ())
    found = [urls[row] for row in rows]
    assert table["uid"].to_pylist() == [uid or pair_uid(url, "c") for uid, url in zip(wanted, found, strict=True)]
    assert (table["url"].to_pylist(), repeated) == (found, 5 - len(rows))
    assert table_digest(table) == table_digest(table.combine_chunks())
