"""Runs of what filters remember, as folders of `.npy` files: mapped where they lie, or copied here from a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curate.errors import WorkError
from curate.storage import Folder
from filters._columns import Column, Keys, Near, Tally, Texts, Values
from filters._memory import Run

KINDS: dict[str, type[Column]] = {"values": Values, "texts": Texts, "keys": Keys, "near": Near, "tally": Tally}
FACTS = "run.json"
CHUNK = 1 << 24  # bytes written at once


def write_run(folder: Folder, run: Run) -> None:
    """Write a run; its `run.json` appears last. The same run gives the same bytes."""
    names = {kind: name for name, kind in KINDS.items()}
    facts: dict[str, Any] = {"first": run.first, "rows": run.rows, "columns": {}}
    for name, column in run.columns.items():
        arrays = column.arrays()
        facts["columns"][name] = {"kind": names[type(column)], "arrays": sorted(arrays)}
        for array, parts in arrays.items():
            _write_array(folder, f"{name}.{array}.npy", parts)
    folder.write_json(FACTS, facts)


def _write_array(folder: Folder, name: str, parts: Sequence[np.ndarray]) -> None:
    """Write the parts of an array, one after the other, as one `.npy` file."""
    first = parts[0]
    shape = (sum(len(part) for part in parts), *first.shape[1:])
    with folder.writing(name) as path, Path(path).open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            step = max(1, CHUNK // max(1, part.nbytes // max(1, len(part))))
            for start in range(0, len(part), step):
                file.write(np.ascontiguousarray(part[start : start + step]).data)


def open_run(folder: Folder, scratch: Path) -> Run:
    """Open a run. Of a local one nothing is read yet; a remote one is copied to `scratch`, once.

    Raises:
        WorkError: it is not whole.
    """
    try:
        facts = folder.read_json(FACTS)
        columns = {
            name: KINDS[column["kind"]].stored(
                {array: _read_array(folder, f"{name}.{array}.npy", scratch) for array in column["arrays"]}
            )
            for name, column in facts["columns"].items()
        }
        return Run(int(facts["first"]), int(facts["rows"]), columns)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkError(f"{folder.url} is damaged or not whole: {' '.join(str(error).split())}") from error


def _read_array(folder: Folder, name: str, scratch: Path) -> np.ndarray:
    path = Path(folder.path(name))
    if not folder.is_local:
        path = scratch / Path(folder.root).name / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            folder.fs.get_file(folder.path(name), str(path))
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:  # an empty array cannot be mapped
        return np.load(path, allow_pickle=False)
