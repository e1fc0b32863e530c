"""A real vision-language model behind a real server: `curate recaption` with the backend `endpoint`."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.errors import RequestError
from curate.recaption.backends.endpoint import Endpoint
from curate.recaption.backends.rewrite import Rewrite
from curate.recaption.contract import Request
from tests.conftest import encoded
from tests.curate.tiny_vlm import COLOURS, PROMPT, caption, picture, serve, train_vlm


@pytest.mark.slow
def test_a_real_model_describes_real_images_through_transformers_serve(tmp_path: Path) -> None:
    model = train_vlm(tmp_path / "model")
    # Large enough to be made smaller on the way.
    images = {name: encoded(picture(name, 999, (1200, 900))) for name in COLOURS}
    requests = [Request(name, 0, PROMPT, 3, "", data) for name, data in images.items()]
    with serve(model) as url:
        backend = Endpoint(base_url=url, model=str(model), temperature=0, max_tokens=12, concurrency=2, max_side=512)
        answers = {answer.uid: answer for answer in backend.write(requests)}
        assert {uid: answer.caption for uid, answer in answers.items()} == {name: caption(name) for name in COLOURS}
        assert all(answer.tokens_in > 50 and 0 < answer.tokens_out <= 12 for answer in answers.values())
        assert {answer.uid: answer for answer in backend.write(requests)} == answers

        cut = next(backend.model_copy(update={"max_tokens": 2}).write(requests[:1]))
        assert (cut.caption, cut.error, cut.tokens_out) == (None, "cut off at max_tokens", 2)

        words = Rewrite(base_url=url, model=str(model), max_tokens=8, when_cut="keep")
        rewritten = next(words.write([Request("u", 0, "plain", 3, "shoe, red | SALE")]))
        assert rewritten.final and rewritten.tokens_in > 50  # this model cannot rewrite, but it was asked and answered

        with pytest.raises(RequestError, match="the server has no such model, or base_url is not where its /v1 begins"):
            list(backend.model_copy(update={"base_url": url.removesuffix("/v1")}).write(requests[:1]))
