"""Acquisition as a flow's stages: done once, and another request is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.acquire.fetch import FetchLimits
from curate.demo.server import serve
from curate.errors import RequestError
from flows.acquire import PAIRS, crawl_once

PAGE = '<html><body><img src="a.jpg" alt="a red house at the lake"></body></html>'


def test_a_crawl_is_done_once_and_another_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text(PAGE)
    listed, folder, limits = tmp_path / "pages.txt", tmp_path / "night", FetchLimits(allow_private=True)
    with serve(tmp_path / "web", 0) as origin:
        listed.write_text(f"{origin}/index.html\n")
        report = crawl_once([str(listed)], folder, limits)
    before = (folder / PAIRS).stat().st_mtime_ns
    assert report["pairs"] == 1
    again = crawl_once([str(listed)], folder, limits)  # the server is gone: nothing is asked
    assert again == report and (folder / PAIRS).stat().st_mtime_ns == before
    listed.write_text(f"{origin}/other.html\n")
    with pytest.raises(RequestError, match="other sources or with other limits"):
        crawl_once([str(listed)], folder, limits)


def test_a_folder_with_pairs_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    (tmp_path / "night" / PAIRS).write_bytes(b"mine")
    with pytest.raises(RequestError, match="holds pairs or a pool of something else"):
        crawl_once(["http://127.0.0.1/"], tmp_path / "night", FetchLimits())
    assert (tmp_path / "night" / PAIRS).read_bytes() == b"mine"
