"""A concept matches where it stands between spaces, in its own case, after punctuation was set apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import RequestError
from curate.features.batch import Batch
from curate.features.concepts import Concepts, build_trie, read_concepts
from curate.recipe import load_recipe
from curate.shards import Sample


def concepts(file: Path, *texts: str | None) -> list[list[str] | None]:
    batch = Batch("0.tar", [Sample(str(n), 0, 0, text=text) for n, text in enumerate(texts)])
    return Concepts(metadata=str(file)).measure(batch)["concepts"].to_pylist()


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    file = tmp_path / "concepts.txt"
    file.write_text("dog\ncat\nold town\nNew York\ntown\nst. louis\nn't\n\ndog\n")
    return file


def test_words_and_phrases_are_found(listing: Path) -> None:
    found = concepts(listing, "a dog, in the old\ttown!", "Dogs and hotdogs", "New York New York", "new york", "", None)
    assert found == [["dog", "old town", "town"], [], ["New York"], [], [], None]


def test_a_match_never_crosses_captions_or_spaces(listing: Path) -> None:
    assert concepts(listing, "old", "town", "old  town", "old-town") == [[], ["town"], ["town"], []]


def test_punctuation_is_set_apart_so_that_an_entry_with_a_full_stop_never_matches(listing: Path) -> None:
    assert concepts(listing, "st. louis", "isn't", "is n't it") == [[], [], ["n't"]]


ENTRY = st.text("ab .,\n", min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(st.lists(ENTRY, min_size=1, max_size=8, unique=True), st.lists(st.text("ab .,\t\n", max_size=12), max_size=6))
def test_it_is_the_search_for_a_spaced_substring(entries: list[str], texts: list[str]) -> None:
    bounds, found = build_trie(entries).matches(texts)
    for n, text in enumerate(texts):
        spaced = f" {text} "
        for mark in ",.;:?!`":
            spaced = spaced.replace(mark, f" {mark} ")
        for space in "\t\n\r":
            spaced = spaced.replace(space, " ")
        expected = [number for number, entry in enumerate(entries) if f" {entry} " in spaced]
        assert found[bounds[n] : bounds[n + 1]].tolist() == expected


def test_a_json_list_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "metadata.json"
    file.write_text(json.dumps(["owl", "two words"]))
    assert read_concepts(file) == ["owl", "two words"]
    assert concepts(file, "two words of an owl") == [["owl", "two words"]]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{}", "is not a JSON list of strings"),
        ("a.json", "[1]", "is not a JSON list of strings"),
        ("a.json", "[", "cannot be read"),
        ("a.txt", "\n\n", "holds no concept"),
    ],
)
def test_a_file_without_concepts_is_named(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=said):
        concepts(tmp_path / name, "a dog")


def test_the_list_is_asked_for_and_its_content_counts(listing: Path) -> None:
    with pytest.raises(RequestError, match=r"features\.concepts\.metadata: give a file with one concept a line"):
        _ = load_recipe("metaclip").hash
    with pytest.raises(RequestError, match=r"no file 'gone\.txt'"):
        Concepts(metadata="gone.txt").fingerprint()
    before = Concepts(metadata=str(listing)).fingerprint()
    listing.write_text("owl\n")
    assert Concepts(metadata=str(listing)).fingerprint() != before
    assert concepts(listing, "an owl") == [["owl"]]
