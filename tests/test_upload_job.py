"""Features go to Neuronpedia over HTTP: each once, from where the last worker came to, and what is final is said."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from neuronpedia_server import ANOTHERS, KEY, Fault, Neuronpedia, served_neuronpedia  # noqa: F401
from trained_saes import WIDTH, change, make_saes, train_again

from mistudiod.neuronpedia import upload as requests
from mistudiod.pages import Pages
from mistudiod.paths import Paths
from mistudiod.specs import Upload
from mistudiod.worker import neuronpedia_api as api
from mistudiod.worker import upload as job
from mistudiod.worker.link import Asked, Link, Refused

AT_ONCE = 8
PLACE = "tiny/1-res-batchtopk"
LABELS = [
    {"feature": 3, "text": "closes a bracket", "provider": "person", "model": None},
    {"feature": 50, "text": "\0 and \ud800", "provider": "ollama", "model": "qwen3:4b"},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_saes(tmp_path_factory.mktemp("upload"))


@pytest.fixture
def data(made: Path, there: Neuronpedia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "data", ignore=shutil.ignore_patterns("checkpoints", "runs"))
    monkeypatch.setattr(requests, "AT_ONCE", AT_ONCE)
    monkeypatch.setattr(api, "FIRST_WAIT_S", 0.01)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    change(tmp_path / "data/models/m/model.json", source="org/tiny")  # a name of one letter is none there
    give(tmp_path / "data", there.url)
    return tmp_path / "data"


def give(run: Path, url: str, labels: list[dict[str, Any]] = LABELS) -> None:
    (run / "given.json").write_text(json.dumps({"labels": labels, "url": url}))


def link_of(data: Path, key: str | None = KEY) -> Link:
    return Link(data, Paths(data), secrets={"neuronpedia": key} if key else None)


def upload(data: Path, key: str | None = KEY, **fields: Any) -> dict[str, Any]:
    """The job's result; nothing that it says has the key in it."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        job.run(Upload(**{"sae": "batchtopk", **fields}), link_of(data, key))
    assert KEY not in said.getvalue()
    result: dict[str, Any] = json.loads(said.getvalue().splitlines()[-1])["result"]
    return result


def refused(data: Path, **fields: Any) -> str:
    with pytest.raises(Refused) as caught:
        upload(data, **fields)
    assert str(caught.value).count("\n") == 0 and KEY not in str(caught.value)
    return str(caught.value)


def alive(data: Path) -> list[int]:
    (folder,) = (data / "features" / "batchtopk").iterdir()
    pages = Pages(folder)
    return [n for n in range(WIDTH) if pages.page(n)["examples"]]


def test_every_feature_that_fires_is_there_with_what_it_is_called(data: Path, there: Neuronpedia) -> None:
    result = upload(data)
    taken, expected = there.features[PLACE], alive(data)
    assert sorted(taken) == expected
    assert result == {
        "sae": "batchtopk", "extraction": "7", "url": f"{there.url}/{PLACE}", "features": len(expected),
        "dead": WIDTH - len(expected), "labels": sum(one["feature"] in expected for one in LABELS),
        "requests": len(there.sizes),
    }  # fmt: skip
    assert taken[3]["explanations"] == [{"text": "closes a bracket", "methodName": "human"}]
    assert there.models["tiny"]["layers"] == 3 and there.sets["tiny", "res-batchtopk"]["description"].startswith(
        "Residual, 96"
    )
    assert there.keys == {KEY} and max(there.sizes) <= AT_ONCE


def test_without_labels_none_go(data: Path, there: Neuronpedia) -> None:
    give(data, there.url, [])
    assert upload(data)["labels"] == 0
    assert not any("explanations" in one for one in there.features[PLACE].values())


def test_it_is_called_as_the_job_says(data: Path, there: Neuronpedia) -> None:
    result = upload(data, model_id="tiny-1", set="mine", description="Mine")
    assert result["url"] == f"{there.url}/tiny-1/1-mine" and there.sets["tiny-1", "mine"]["description"] == "Mine"


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([200, 200, 200, 500, 502], id="errors of the server"),
        pytest.param([500, 200, 503], id="errors before there is anything"),
        pytest.param([200, 200, 200, Fault(429, {"Retry-After": "0.2"})], id="too many requests"),
        pytest.param([200, 200, Fault(cut="before"), 200, Fault(cut="before")], id="cut before"),
        pytest.param([200, 200, Fault(cut="after"), 200, 0], id="cut after"),
        pytest.param([0, 0, 200, 200, Fault(503, body="<html>")], id="cut after, and a web page"),
        pytest.param([200, 200, 200, Fault(slow_s=1.0)], id="slow"),
    ],
)
@pytest.mark.parametrize("once", [False, True], ids=["taken again", "taken once"])
def test_what_passes_is_waited_for_and_nothing_is_missing(
    data: Path, there: Neuronpedia, faults: list[int | Fault], once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "TIMEOUT_S", 0.4)
    there.fail, there.once = faults, once
    result = upload(data)
    assert sorted(there.features[PLACE]) == alive(data) and result["features"] == len(alive(data)) and there.fail == []


def test_as_long_as_it_is_asked_to_it_waits(data: Path, there: Neuronpedia) -> None:
    there.fail = [200, 200, Fault(429, {"Retry-After": "1"})]
    began = time.monotonic()
    upload(data)
    assert time.monotonic() - began > 1
    there.fail = [200, 200, Fault(429, {"Retry-After": "90000"})]
    (data / job.TAKEN).unlink()
    assert "asks to wait 25.0 hours (it answers 429: failed with 429): retry the job then" in refused(data)


def test_a_job_that_is_tried_again_goes_on_at_the_first_request_that_was_not_taken(
    data: Path, there: Neuronpedia
) -> None:
    there.fail = [200] * 5 + [503] * api.TRIES
    assert "Neuronpedia does not take it, 8 times in a row (it answers 503: failed with 503)" in refused(data)
    before, sizes = len(there.requests), list(there.sizes)
    assert len(sizes) == 3
    result = upload(data)
    assert set(there.requests[before:]) == {requests.FEATURES}, "model and set are not asked for again"
    assert sorted(there.features[PLACE]) == alive(data)
    assert sum(there.sizes) == result["features"] == len(alive(data)), "none was sent twice"
    assert result["requests"] == len(there.sizes)
    asked = len(there.requests)
    assert upload(data) == result and len(there.requests) == asked, "there is nothing left to send"


@pytest.mark.parametrize("wish", ["stop", "pause"])
def test_asked_to_end_it_ends_in_the_middle_of_a_request_and_goes_on_later(
    data: Path, there: Neuronpedia, wish: str
) -> None:
    there.fail = [200] * 4 + [Fault(slow_s=30)]
    link = link_of(data)
    asking = threading.Thread(target=lambda: (until(lambda: len(there.requests) == 5), link.hear(wish)))
    asking.start()
    began = time.monotonic()
    with contextlib.redirect_stderr(io.StringIO()), pytest.raises(Asked):
        job.run(Upload.model_validate({"sae": "batchtopk"}), link)
    asking.join()
    assert time.monotonic() - began < 20 and len(there.sizes) == 2
    assert upload(data)["features"] == len(alive(data)) == sum(there.sizes)


def until(true: Any) -> None:
    end = time.monotonic() + 20
    while not true() and time.monotonic() < end:
        time.sleep(0.01)


def test_what_lies_in_the_run_folder_of_another_place_or_other_features_is_not_gone_on_with(
    data: Path, there: Neuronpedia
) -> None:
    upload(data)
    assert upload(data, set="other")["url"].endswith("1-other") and len(there.features["tiny/1-other"]) == len(
        alive(data)
    )
    for damage in ("{", "[]", '{"place": 1}'):
        (data / job.TAKEN).write_text(damage)
        there.features[PLACE].clear()
        upload(data)
        assert sorted(there.features[PLACE]) == alive(data)


def test_a_wrong_key_is_one_request_and_none_is_none(data: Path, there: Neuronpedia) -> None:
    assert "mistudio secret set neuronpedia, then retry the job" in refused(data, key="wrong")
    assert len(there.requests) == 1
    assert f"make one at {there.url}/account and store it with mistudio secret set neuronpedia" in refused(
        data, key=None
    )
    assert len(there.requests) == 1
    there.fail = [200] * 3 + [Fault(403, body="<html>go away")]
    assert re.search(r"refuses the key \(403\): store it", refused(data)) and len(there.requests) == 5


def test_a_set_of_ours_is_used_and_one_of_somebody_else_is_not(data: Path, there: Neuronpedia) -> None:
    first = upload(data)
    (data / job.TAKEN).unlink()
    assert upload(data) == first
    (data / job.TAKEN).unlink()
    said = refused(data, key=ANOTHERS)
    assert "the set res-batchtopk of tiny is there already, and is somebody else's (You do not own" in said
    assert upload(data, key=ANOTHERS, set="theirs")["features"] == first["features"], "the model is everybody's"


def test_features_that_are_there_already_are_not_taken_for_those_that_were_just_sent(
    data: Path, there: Neuronpedia
) -> None:
    there.once = True
    upload(data)
    (data / job.TAKEN).unlink()
    assert (
        "1-res-batchtopk of tiny has such features already (Feature already exists (409)): choose another set"
        in refused(data)
    )
    assert "such features already" in refused(data), "and the job that is tried again is refused again"
    assert there.requests.count(requests.FEATURES) == len(there.sizes) + 2


def test_what_is_refused_names_the_feature_and_what_was_said(data: Path, there: Neuronpedia) -> None:
    there.methods.clear()
    said = refused(data)
    nth = [n for n in alive(data) if n < AT_ONCE].index(3)
    assert said == f"Neuronpedia does not take feature 3 of batchtopk: features[{nth}]: unknown methodName (400)"
    there.fail = [200, 200, Fault(400, body='{"error": "no"}')]
    assert re.fullmatch(r"Neuronpedia does not take features \d+ to \d+ of batchtopk: no \(400\)", refused(data))
    there.fail = [200, 200, Fault(413, body="<html>")]
    assert "too large for Neuronpedia (413)" in refused(data)


def test_a_model_that_has_no_such_layer_there_is_refused_in_its_words(data: Path, there: Neuronpedia) -> None:
    there.models["tiny"] = {"id": "tiny", "layers": 1}
    assert "Source not found (404)" in refused(data)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(302, {"Location": "http://evil.example:99/x"}), "sends us on to evil.example:99, where no key is sent"),
        (Fault(308, {"Location": "/elsewhere"}), "sends us on to 127.0.0.1:"),
        (Fault(200, body="<!doctype html>"), r"is no Neuronpedia: correct its address in the setting neuronpedia_url"),
        (Fault(404, body="<!doctype html>"), r"\(404\) is no Neuronpedia"),
        (Fault(400, body='{"error": {"id": "no"}}'), "does not make model tiny: {"),
    ],
)  # fmt: skip
def test_what_is_no_neuronpedia_is_said_after_one_request(
    data: Path, there: Neuronpedia, fault: Fault, said: str
) -> None:
    there.fail = [fault]
    with pytest.raises(Refused, match=said):
        upload(data)
    assert len(there.requests) == 1


def test_nobody_there_is_said(data: Path) -> None:
    give(data, "http://127.0.0.1:9")
    assert "correct its address in the setting neuronpedia_url" in refused(data)
    give(data, "http://169.254.169.254")
    assert "is where a cloud keeps its machines' keys" in refused(data)


def test_offline_nothing_leaves_the_network_of_ones_own(
    data: Path, there: Neuronpedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    give(data, "https://www.neuronpedia.org")
    assert "miStudio is offline, so nothing can be uploaded to https://www.neuronpedia.org" in refused(data)
    give(data, there.url)
    assert upload(data)["features"] == len(alive(data))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_id": "My_model"}, "'My_model' is no model of Neuronpedia's"),
        ({"model_id": "my_model"}, "takes no model called 'my_model' from its users"),
        ({"set": "neurons"}, "'neurons' is no name of a set"),
        ({"set": "a--b"}, "takes no set called 'a--b'"),
        ({"sae": "topk"}, "no features of topk as it is now have been extracted: mistudio feature extract topk"),
    ],
)
def test_what_it_cannot_be_called_and_what_is_not_there_is_said_before_anything_is_sent(
    data: Path, there: Neuronpedia, fields: dict[str, Any], said: str
) -> None:
    assert said in refused(data, **fields) and there.requests == []


def test_features_of_other_weights_are_to_be_extracted_again(data: Path, there: Neuronpedia) -> None:
    train_again(data / "saes/batchtopk")
    assert "are of other weights: extract them again: mistudio feature extract batchtopk" in refused(data)
    assert there.requests == []
