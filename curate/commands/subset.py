"""curate subset: the kept uids of a dataset as DataComp's scripts read them."""

from __future__ import annotations

from pathlib import Path

import click

from curate.curation import SELECTION
from curate.errors import RequestError
from curate.metadata.subset import kept_uids, save_subset
from curate.storage import Folder


@click.command()
@click.argument("out")
@click.argument("file")
def command(out: str, file: str) -> None:
    """Write the uids that the dataset at OUT keeps to FILE, a sorted .npy array as DataComp's scripts read it.

    `curate filter` writes the same as OUT/subset.npy where all uids are 32 hex digits, as DataComp's are.
    """
    folder = Folder(out)
    if not folder.exists(SELECTION):
        raise RequestError(f"OUT: {out} holds no {SELECTION}; give the OUT of a finished `curate filter`")
    with folder.local_copy(SELECTION) as path:
        uids = kept_uids(path)
    if uids is None:
        raise RequestError(f"OUT: not all kept uids of {out} are 32 hex digits, which a subset file can hold only")
    parent, _, name = file.rpartition("/")
    save_subset(Folder(parent or str(Path.cwd())), name, uids)
    click.echo(f"{len(uids):,} uids: {file}")
