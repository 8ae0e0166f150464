"""What is uploaded to Neuronpedia is what its rules take; what they refuse is refused here, before it is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from neuronpedia_export import DEAD, FEATURES, LABELS, about, store
from neuronpedia_server import KEY, Neuronpedia

from mistudiod.neuronpedia import upload
from mistudiod.neuronpedia.names import Names
from mistudiod.pages import Pages

WHERE = "tiny/6-res-me"


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    return store(tmp_path / "store")


async def post(server: TestServer, path: str, body: Any, key: str = KEY) -> int:
    async with (
        aiohttp.ClientSession(json_serialize=_plain) as session,
        session.post(server.make_url(path), json=body, headers={upload.KEY: key}) as answer,
    ):
        assert answer.status != 400, await answer.text()
        return answer.status


def _plain(body: Any) -> str:
    return json.dumps(body, allow_nan=False)


async def test_an_upload_is_taken_whole_and_goes_on_where_it_was_cut(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "AT_ONCE", 3)
    there, what = Neuronpedia(), about(pages)
    async with TestServer(there.app()) as server:
        assert await post(server, upload.MODEL, upload.model(what)) == 200
        assert await post(server, upload.SOURCE_SET, upload.source_set(what)) == 200
        assert await post(server, upload.FEATURES, {}, key="another") == 401
        there.fail = [200, 503]
        after = 0
        for one in upload.features(pages, what, LABELS):
            if one.body and await post(server, upload.FEATURES, one.body) != 200:
                break
            after = one.after
        assert after == 3 and sorted(there.features[WHERE]) == [0, 1, 2]
        there.fail = [0]
        rest = list(upload.features(pages, what, LABELS, after))
        with pytest.raises(aiohttp.ClientError):  # taken, but the answer was lost: it is sent again, and is the same
            await post(server, upload.FEATURES, rest[0].body)
        for one in rest:
            assert one.body and await post(server, upload.FEATURES, one.body) == 200
    assert rest[-1].after == FEATURES and sum(one.dead for one in rest) == 1
    taken = there.features[WHERE]
    assert sorted(taken) == [n for n in range(FEATURES) if n != DEAD]
    for index, one in taken.items():
        page = pages.page(index)
        assert one["density"] == page["density"]
        assert [act["values"] for act in one["activations"]] == [shown["activations"] for shown in page["examples"]]
        assert [logit["value"] for logit in one["topLogits"]] == [logit["value"] for logit in page["logits"]["top"]]
        groups = {shown["kind"]: "quantileMin" in act for act, shown in zip(one["activations"], page["examples"])}
        assert groups.pop("top") is False and all(groups.values())
    assert [taken[n]["explanations"] for n in (0, 3, 9)] == [
        [{"text": "NUL ␀ and \ufffd", "methodName": "human"}],
        [{"text": "\u202eright to left"}],
        [{"text": r"the text \u0000", "modelName": "gpt-4o-mini"}],
    ]


def test_the_requests_that_are_left_are_those_that_would_have_been_sent(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "AT_ONCE", 1)
    whole = list(upload.features(pages, about(pages), LABELS))
    assert [one.body is None for one in whole] == [n == DEAD for n in range(FEATURES)]
    assert list(upload.features(pages, about(pages), LABELS, whole[4].after)) == whole[5:]
    assert list(upload.features(pages, about(pages), LABELS, FEATURES)) == []


def test_a_request_has_128_features_at_most(tmp_path: Path) -> None:
    pages = store(tmp_path / "store", features=150)
    sizes = [len(one.indices) + one.dead for one in upload.features(pages, about(pages), {})]
    assert sizes == [128, 22]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"names": Names("t", 6, "res")}, "takes no model called 't'"),
        ({"names": Names("tiny_model", 6, "res")}, "takes no model called 'tiny_model'"),
        ({"names": Names("tiny--model", 6, "res")}, "none of them twice in a row"),
        ({"names": Names("a" * 33, 6, "res")}, "2 to 32"),
        ({"names": Names("tiny", 6, "res_me")}, "takes no set called 'res_me'"),
        ({"names": Names("tiny", 6, "4x")}, "takes no set called '4x'"),
        ({"names": Names("tiny", 6, "res", "l0-38")}, "takes no source 6-res__l0-38"),
        ({"names": Names("tiny", None, "res")}, "takes no source e-res"),
        ({"layers": 128}, "up to 127 layers from its users, not 128"),
        ({"description": "x" * 129}, "1 to 128 characters, not 129"),
        ({"description": ""}, "1 to 128 characters, not 0"),
    ],
)
def test_what_would_be_refused_is_said_before_it_is_sent(pages: Pages, fields: dict[str, Any], said: str) -> None:
    what = about(pages, **fields)
    with pytest.raises(ValueError, match=said):
        upload.model(what), upload.source_set(what)


def test_a_label_that_is_too_long_names_its_feature(pages: Pages) -> None:
    with pytest.raises(ValueError, match="the label of feature 2 has 513 characters: Neuronpedia takes 1 to 512"):
        list(upload.features(pages, about(pages), {2: {"text": "x" * 513}}))


def test_examples_of_more_than_1024_tokens_are_cut_behind_the_peak(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "MOST_TOKENS", 7)
    for one in upload.features(pages, about(pages), {}):
        for found in one.body["features"] if one.body else ():
            examples = pages.page(found["index"])["examples"]
            for act, example in zip(found["activations"], examples, strict=True):
                assert len(act["tokens"]) == len(act["values"]) <= 7
                assert example["max"] == 0 or act["values"][example["peak"]] == example["max"]
