"""Whether the files of a shard are those that its download finished: sizes by one listing, digests where asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from curate.storage import Folder

FACTS = "curate"  # the field of a shard's _stats.json that holds them
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What a finished shard is made of and what its files are. Digests are 128-bit XXH3 in hex; sizes in bytes."""

    rows: str  # digest of the request and the rows
    tar_bytes: int  # 0: no image arrived, and there is no tar
    tar_digest: str
    parquet_bytes: int
    parquet_digest: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def files(self, name: str) -> dict[str, int]:
        """Sizes by file name."""
        tar = {f"{name}.tar": self.tar_bytes} if self.tar_bytes else {}
        return {**tar, f"{name}.parquet": self.parquet_bytes}


def rows_digest(request: Mapping[str, Any], uids: list[str]) -> str:
    """Names the rows of a shard and the request that they are downloaded by."""
    text = json.dumps([request, uids], sort_keys=True)
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


def file_facts(path: Path) -> tuple[int, str]:
    """Size and digest of a local file."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return path.stat().st_size, digest.hexdigest()


def sizes(pool: Folder) -> dict[str, int]:
    """Sizes in bytes of the files that lie directly in a pool, by name; a store is asked once for a thousand."""
    if not pool.exists():
        return {}
    found = pool.fs.find(pool.root, maxdepth=1, detail=True)
    return {path.rsplit("/", 1)[-1]: int(info["size"]) for path, info in found.items() if path != pool.root}


def shard_facts(pool: Folder, name: str) -> ShardFacts | None:
    """What a shard's _stats.json says that it is; None if that is missing, damaged or another program's."""
    try:
        return ShardFacts(**json.loads(pool.read_bytes(f"{name}_stats.json"))[FACTS])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def is_whole(pool: Folder, name: str, rows: str, there: Mapping[str, int], *, read: bool = False) -> bool:
    """Whether a shard was finished from these rows, and its files have not changed their size since.

    Args:
        there: as `sizes` gives it.
        read: also compare what is in them, which reads all of it.
    """
    facts = shard_facts(pool, name) if f"{name}_stats.json" in there else None
    if facts is None or facts.rows != rows:
        return False
    wanted = facts.files(name)
    if {file: there.get(file) for file in (f"{name}.tar", f"{name}.parquet") if file in there} != wanted:
        return False
    if not read:
        return True
    digests = {f"{name}.tar": facts.tar_digest, f"{name}.parquet": facts.parquet_digest}
    for file in wanted:
        with pool.local_copy(file) as path:
            if file_facts(Path(path))[1] != digests[file]:
                return False
    return True
