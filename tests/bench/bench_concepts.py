"""Concepts: 500,000 entries looked for in captions by MetaCLIP's rule, against its own Aho-Corasick automaton."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from curate.features.batch import Batch
from curate.features.concepts import Concepts, open_trie
from curate.measure import BATCH
from curate.shards import Sample
from tests.bench.figure import Figure
from tests.bench.peers import peer_python, run_peer

ENTRIES = 500_000
CAPTIONS = 100_000
WORDS = 150_000
PEER = """
import json, sys, time
import ahocorasick
captions, entries = (json.load(open(path)) for path in sys.argv[1:])
def spaced(text):
    text = f" {text} "
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for space in "\\t\\n\\r":
        text = text.replace(space, " ")
    return text
began = time.process_time()
automaton = ahocorasick.Automaton()
for number, entry in enumerate(entries):
    automaton.add_word(f" {entry} ", number)
automaton.make_automaton()
built = time.process_time() - began
began = time.process_time()
found = [sorted({number for _, number in automaton.iter(spaced(text))}) for text in captions]
seconds = time.process_time() - began
print(json.dumps({"built": built, "seconds": seconds, "matches": sum(map(len, found)), "some": found[:2000]}))
"""


def run(work: Path) -> list[Figure]:
    captions, entries = made()
    (work / "captions.json").write_text(json.dumps(captions))
    (work / "entries.json").write_text(json.dumps(entries))
    peer = run_peer(
        peer_python("ahocorasick", ["pyahocorasick==2.3.1"]),
        PEER,
        str(work / "captions.json"),
        str(work / "entries.json"),
    )
    feature = Concepts(metadata=str(work / "entries.json"))
    batches = [
        Batch("0.tar", [Sample("", 0, 0, text=text) for text in captions[first : first + BATCH]])
        for first in range(0, CAPTIONS, BATCH)
    ]
    began = time.process_time()
    trie = open_trie(feature.metadata)
    built = time.process_time() - began
    began = time.process_time()
    matches = sum(len(feature.measure(batch)["concepts"].flatten()) for batch in batches)
    seconds = time.process_time() - began
    bounds, found = trie.matches(captions[:2000])
    same = [found[a:b].tolist() for a, b in pairwise(bounds)] == peer["some"]
    if not same or matches != peer["matches"]:
        raise AssertionError(f"{matches} matches against {peer['matches']}")
    detail = (
        f"{CAPTIONS / seconds:,.0f} captions/s of one core and {built:.1f} s to build, against "
        f"{CAPTIONS / peer['seconds']:,.0f}/s and {peer['built']:.1f} s of pyahocorasick; a million captions: "
        f"{1e6 / CAPTIONS * seconds:.0f} s; the same {matches:,} matches"
    )
    name = "concepts: 500,000 entries in captions, against pyahocorasick"
    return [Figure(name, peer["seconds"] / seconds, "x", detail=detail)]


def made() -> tuple[list[str], list[str]]:
    """Captions of about twelve words with the frequencies of a language, and entries of one to four such words."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    words = ["".join(random.choice(letters, n)) for n in random.integers(2, 11, WORDS)]
    weights = 1 / (np.arange(WORDS) + 3)
    weights /= weights.sum()

    def lines(count: int, low: int, high: int) -> list[str]:
        lengths = random.integers(low, high, count)
        drawn = random.choice(WORDS, lengths.sum(), p=weights).tolist()
        ends = np.cumsum(lengths).tolist()
        return [" ".join(words[w] for w in drawn[end - n : end]) for n, end in zip(lengths.tolist(), ends, strict=True)]

    entries = dict.fromkeys(words[: WORDS // 2])
    while len(entries) < ENTRIES:
        entries |= dict.fromkeys(lines(100_000, 2, 5))
    return lines(CAPTIONS, 4, 21), list(entries)[:ENTRIES]
