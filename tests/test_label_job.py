"""Jobs that label features, through the real client, against a server that answers as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from feature_pages import PlainPages, definitions, example, page
from openai_server import (
    HANGS,
    OpenAIServer,
    Reply,
    content,
    error,
    label,
    served_openai,  # noqa: F401, the fixture openai_server
)

from mistudiod.labelling import prompt
from mistudiod.labelling.describe import describe
from mistudiod.paths import Paths
from mistudiod.specs import Label
from mistudiod.worker import label as worker
from mistudiod.worker.link import Asked, Link, Refused

TEMPLATE = {"name": "default", "text": prompt.DEFAULT.read_text(), "sha256": "0" * 64}
KEY = "sk-canary-0123456789abcdef"
REFUSES, PROSE, EMPTY = content("I'm sorry, I can't help with that."), content("It is brackets."), content("")
UNCLEAR = content('{"label": "", "unclear": true}')


class Ear(Link):
    """A link that keeps what is said, with the orders and the secret that a daemon would hand over."""

    def __init__(self, folder: Path, given: dict[str, Any], key: str | None = None) -> None:
        super().__init__(folder, Paths(folder), secrets={"endpoint": key} if key else None)
        self._given = given
        self.batches: list[dict[str, Any]] = []
        self.done: list[float] = []
        self.found: dict[str, Any] = {}

    def given(self) -> dict[str, Any]:
        return self._given

    def labels(self, **event: Any) -> None:
        self.batches.append(event)

    def progress(self, stage: str, done: float, total: float | None = None, unit: str = "") -> None:
        self.done.append(done)

    def result(self, result: dict[str, object]) -> None:
        json.dumps(result, allow_nan=False)
        self.found = result

    @property
    def told(self) -> list[dict[str, Any]]:
        return [one for batch in self.batches for one in batch["labels"]]

    @property
    def errors(self) -> list[str]:
        return [one["error"] for one in self.told if "error" in one]


Start = Callable[..., Ear]


@pytest.fixture
def start(openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run a job on so many features; what it raises comes through, with the ear in ``start.ear``."""

    def run(
        count: int = 5, pages: PlainPages | None = None, key: str | None = None, ear: Ear | None = None, **fields: Any
    ) -> Ear:
        monkeypatch.setattr("mistudiod.pages.Pages", pages or store(range(count)), raising=False)
        spec = Label.model_validate({"sae": "s", "endpoint": "ours", "model": "m", "top": 9, **fields})
        ear = ear or orders(openai_server, tmp_path, count, key)
        ears.append(ear)
        worker.run(spec, ear)
        return ear

    ears: list[Ear] = []
    run.ears = ears  # type: ignore[attr-defined]
    return run


def store(indices: Sequence[int], broken: Sequence[int] = ()) -> PlainPages:
    return PlainPages({index: definitions(index) for index in indices}, broken)


def orders(server: OpenAIServer, folder: Path, count: int, key: str | None = None, **more: Any) -> Ear:
    features = [{"index": index, "label": None} for index in range(count)]
    given = {"extraction": "12", "endpoint": server.given(), "template": TEMPLATE, "features": features, **more}
    return Ear(folder, given, key)


def test_every_feature_is_labelled_with_where_the_label_comes_from(openai_server: OpenAIServer, start: Start) -> None:
    openai_server.always = lambda body: label("begins a function", 90, usage=(1000, 30))
    ear = start(5)
    assert {(batch["provider"], batch["model"], batch["extraction"]) for batch in ear.batches} == {("ours", "m", "12")}
    assert {(batch["template"], batch["template_sha256"]) for batch in ear.batches} == {("default", "0" * 64)}
    first = next(one for one in ear.told if one["feature"] == 0)
    assert first == {
        "feature": 0,
        "text": "begins a function",
        "explanation": "It begins a function.",
        "confidence": 0.9,
        "evidence": {"windows": prompt.shown_windows(definitions())},
        "prompt_tokens": 1000,
        "answer_tokens": 30,
    }
    assert sorted(one["feature"] for one in ear.told) == [0, 1, 2, 3, 4]
    assert ear.found == {
        "labelled": 5, "unclear": 0, "failed": 0, "reasons": {},
        "prompt_tokens": 5000, "answer_tokens": 150, "cost_usd": 0.0,
    }  # fmt: skip
    assert ear.done[0] == 0 and ear.done[-1] == 5
    asked = openai_server.seen[0].body["messages"]
    assert asked == prompt.build(definitions(), TEMPLATE["text"])


def test_32_failures_of_40_are_a_partial_job_that_says_so(openai_server: OpenAIServer, start: Start) -> None:
    openai_server.replies = [label()] * 8 + [PROSE] * 10 + [REFUSES] * 10 + [EMPTY] * 6 + [error(400, "no")] * 6
    ear = start(40, concurrency=1)
    assert (ear.found["labelled"], ear.found["failed"], ear.found["unclear"]) == (8, 32, 0)
    assert ear.found["partial"].startswith("32 of 40 features failed: ")
    assert ear.found["reasons"] == {
        "there is no JSON in the answer": 10,
        "the model refused": 10,
        "the answer is empty": 6,
        "the endpoint answered 400: no": 6,
    }
    assert len(ear.errors) == 32


def test_unclear_is_no_failure(openai_server: OpenAIServer, start: Start) -> None:
    openai_server.always = lambda body: UNCLEAR
    ear = start(25)
    assert (ear.found["labelled"], ear.found["unclear"], ear.found["failed"]) == (0, 25, 0)
    assert "partial" not in ear.found
    assert ear.errors == ["unclear"] * 25


def test_twenty_failures_for_one_reason_at_the_beginning_end_the_job(openai_server: OpenAIServer, start: Start) -> None:
    openai_server.always = lambda body: PROSE
    with pytest.raises(
        Refused, match="the first 20 features all failed, so the others were not tried: there is no JSON"
    ):
        start(200)
    assert len(openai_server.seen) < 28
    assert len(start.ears[0].errors) >= 20  # type: ignore[attr-defined]


def test_failures_of_several_kinds_do_not_end_the_job(openai_server: OpenAIServer, start: Start) -> None:
    openai_server.replies = [EMPTY, *[PROSE] * 50]
    ear = start(51, concurrency=1)
    assert ear.found["failed"] == 51


def test_a_broken_page_is_a_failure_of_its_feature(openai_server: OpenAIServer, start: Start) -> None:
    ear = start(4, pages=store(range(3), broken=[1]))
    assert (ear.found["labelled"], ear.found["failed"]) == (2, 2)
    assert "its page cannot be read: the page of feature 1 is damaged" in ear.errors
    assert len(openai_server.seen) == 2


def test_of_a_dead_feature_and_one_without_evidence_nothing_is_asked(openai_server: OpenAIServer, start: Start) -> None:
    hidden = page([example("a ⟦b⟧", held_out=True)], 1)
    ear = start(3, pages=PlainPages({0: page([], 0, fired=0), 1: hidden, 2: definitions(2)}))
    assert ear.found["failed"] == 2
    assert len(openai_server.seen) == 1


def test_a_refused_key_ends_the_job_after_one_request(openai_server: OpenAIServer, start: Start) -> None:
    openai_server.always = lambda body: error(401, f"Incorrect API key provided: {KEY}")
    with pytest.raises(Refused, match="mistudio secret set") as caught:
        start(40, key=KEY)
    assert KEY not in str(caught.value)
    assert len(openai_server.seen) == 1
    assert start.ears[0].told == []  # type: ignore[attr-defined]


def test_a_limit_is_of_the_job_not_of_each_of_its_workers(
    openai_server: OpenAIServer, start: Start, tmp_path: Path
) -> None:
    openai_server.always = lambda body: label(usage=(900, 100)) if len(openai_server.seen) % 2 else PROSE
    used, asked = None, 0
    for _ in range(5):  # as a daemon does after each end
        ear = start(40, ear=orders(openai_server, tmp_path, 2, used=used), max_tokens=5000, concurrency=1)
        used = json.loads((tmp_path / "used.json").read_text())
        assert used.items() <= ear.found.items()
        assert used["prompt_tokens"] + used["answer_tokens"] <= 5000
        asked = len(openai_server.seen)
    assert asked == 7  # 4 x 1000, 3 x 120 that failed, and no room for one more
    assert "max_tokens is reached" in ear.found["partial"] and "2 of 2 features are left" in ear.found["partial"]


def test_the_budget_ends_the_job_and_says_how_many_are_left(openai_server: OpenAIServer, start: Start) -> None:
    openai_server.always = lambda body: label(usage=(1000, 400))
    ear = start(40, max_tokens=10_000)
    assert 6 <= ear.found["labelled"] <= 7
    assert ear.found["prompt_tokens"] + ear.found["answer_tokens"] <= 10_000
    left = 40 - ear.found["labelled"]
    assert ear.found["partial"].startswith("max_tokens is reached: ")
    assert ear.found["partial"].endswith(f"; {left} of 40 features are left")


def test_a_stop_while_all_questions_hang_waits_for_none_of_them(
    openai_server: OpenAIServer, start: Start, tmp_path: Path
) -> None:
    openai_server.replies = [label()]
    openai_server.always = lambda body: HANGS
    ear = orders(openai_server, tmp_path, 40)
    told_at: list[float] = []

    def stop() -> None:
        while openai_server.hanging < 4 or not ear.batches:  # what is there is told while others are waited for
            time.sleep(0.01)
        told_at.append(time.monotonic())
        ear.hear("stop")

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Asked):
        start(40, ear=ear)
    assert time.monotonic() - told_at[0] < 20, "an answer may take two minutes"
    thread.join()
    assert [one["feature"] for one in ear.told] == [0]


def test_labels_are_told_while_the_job_runs_and_not_one_by_one(openai_server: OpenAIServer, start: Start) -> None:
    ear = start(120, endpoint="tokens")
    assert 3 <= len(ear.batches) < 60
    assert max(len(batch["labels"]) for batch in ear.batches) <= 50


def test_without_an_llm_features_are_described_and_nobody_is_asked(
    openai_server: OpenAIServer, start: Start, tmp_path: Path
) -> None:
    ear = orders(openai_server, tmp_path, 3, endpoint=None, template=None)
    start(3, ear=ear, endpoint="tokens", model=None)
    assert openai_server.seen == []
    assert {(batch["provider"], batch["model"], batch["template"]) for batch in ear.batches} == {("tokens", None, None)}
    assert ear.told[1] == {"feature": 1, **describe(definitions()), "evidence": {}}
    assert ear.found == {"labelled": 3, "unclear": 0, "failed": 0, "reasons": {}}


def test_nothing_to_do_is_done(openai_server: OpenAIServer, start: Start) -> None:
    assert start(0).found["labelled"] == 0
    assert openai_server.seen == []


def test_a_template_that_cannot_be_used_is_refused_before_anybody_is_asked(
    openai_server: OpenAIServer, start: Start, tmp_path: Path
) -> None:
    own = {"name": "mine", "text": "--- user\n{storng}", "sha256": "1" * 64}
    with pytest.raises(Refused, match=r"the template mine: \{storng\} is nothing") as caught:
        start(3, ear=orders(openai_server, tmp_path, 3, template=own))
    assert caught.value.field == "template"
    assert openai_server.seen == []


def test_a_limit_of_cost_without_a_price_is_refused(openai_server: OpenAIServer, start: Start, tmp_path: Path) -> None:
    elsewhere = {"name": "ours", "url": "https://somebody.example/v1", "on_this_machine": False}
    with pytest.raises(Refused, match="give price_in and price_out"):
        start(3, ear=orders(openai_server, tmp_path, 3, endpoint=elsewhere), max_cost=1)


def test_the_key_is_in_nothing_that_is_said(
    openai_server: OpenAIServer, start: Start, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    openai_server.replies = [
        label(),
        error(429, headers={"Retry-After": "0.1"}),
        error(500),
        error(400),
        Reply(200, []),
    ]
    ear = start(10, key=KEY)
    assert {seen.authorization for seen in openai_server.seen} == {f"Bearer {KEY}"}
    said = json.dumps([ear.batches, ear.found]) + "".join(capfd.readouterr()) + caplog.text
    assert KEY not in said
