"""Scoring as a job: without an LLM, and with judges that are perfect, careless, unwilling or broken, over real HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai_server import OpenAIServer, Reply, content, error, served_openai  # noqa: F401, the fixture openai_server
from planted import fires_on, plant, words
from run_job import events, run_job

from mistudiod.worker.link import Asked, Link, Refused

EXTRACTION, FEATURES = "1", 6
Judge = Callable[[Any], Reply]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with an extraction; what a test writes there is given.json only."""
    data = tmp_path_factory.mktemp("data")
    rules = [*(fires_on(n) for n in range(FEATURES)), fires_on(59)]
    plant(data / "features" / "s" / EXTRACTION, words(60), rules, rows=800)
    return data


def give(data: Path, labels: dict[int, str], server: OpenAIServer | None = None) -> None:
    features = [
        {"index": index, "label": {"id": 100 + index, "text": text, "explanation": ""}}
        for index, text in labels.items()
    ]
    endpoint = server.given() if server else None
    (data / "given.json").write_text(
        json.dumps({"extraction": EXTRACTION, "endpoint": endpoint, "template": None, "features": features})
    )


RIGHT = {n: f"fires on `w{n}x`" for n in range(FEATURES)}


def judge(data: Path, *methods: str, **fields: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All scores that are sent, and the result."""
    spec = {"sae": "s", "methods": list(methods), "endpoint": "ours", "model": "m", **fields}
    said = events(data, "score", **spec)
    scores = [score for event in said if event["event"] == "scores" for score in event["scores"]]
    return scores, said[-1]["result"]


def texts_of(body: Any) -> list[str]:
    return re.findall(r"^Text \d+: (.*)$", body["messages"][-1]["content"], re.MULTILINE)


def answering(believe: Callable[[str, str], float]) -> Judge:
    """A judge that goes by the label's token and each text."""

    def answer(body: Any) -> Reply:
        word = re.search(r"The feature: .*`(.*)`", body["messages"][-1]["content"])[1]  # type: ignore[index]
        return content(json.dumps({"scores": [believe(word, text) for text in texts_of(body)]}))

    return answer


def perfect(word: str, text: str) -> float:
    marks = re.findall("<<(.*?)>>", text)
    right = all(set(mark.split()) == {word} for mark in marks) if marks else f" {word} " in f"{text} "
    return 90 if right else 10


def test_without_an_llm_right_labels_are_told_from_others(planted: Path) -> None:
    give(planted, {**RIGHT, 2: "fires on `w40x`"})
    said = events(planted, "score", sae="s", examples=10)
    scores = {score["feature"]: score for event in said if event["event"] == "scores" for score in event["scores"]}
    assert {event["extraction"] for event in said if event["event"] == "scores"} == {EXTRACTION}
    assert [n for n in range(FEATURES) if scores[n]["balanced_accuracy"] == 1.0] == [0, 1, 3, 4, 5]
    assert scores[2]["balanced_accuracy"] == pytest.approx(0.5, abs=0.1)
    low = scores[1]["low"]
    assert {name: value for name, value in scores[1].items() if value is not None} == {
        "feature": 1, "label": 101, "method": "tokens",
        "balanced_accuracy": 1.0, "low": low, "high": 1.0, "auroc": 1.0, "auroc_low": low, "auroc_high": 1.0,
        "tp": 10, "fp": 0, "tn": 10, "fn": 0, "failed": 0, "examples": 20,
    }  # fmt: skip
    result = said[-1]["result"]
    assert (result["scored"], result["failed"], result["cost_usd"]) == (FEATURES, 0, 0.0) and "partial" not in result
    worth = result["methods"]["tokens"]
    assert worth["features"] == FEATURES and worth["share_above_0_7"] == pytest.approx(5 / 6)
    assert worth["low"] < worth["mean"] < worth["high"] and worth["mean"] == pytest.approx(5.5 / 6, abs=0.02)


def test_progress_says_how_long_it_takes(planted: Path) -> None:
    give(planted, RIGHT)
    last = [event for event in events(planted, "score", sae="s") if event["event"] == "progress"][-1]
    assert (last["stage"], last["done"], last["total"], last["unit"]) == ("score", FEATURES, FEATURES, "features")


@pytest.mark.parametrize("method", ["detection", "fuzzing"])
def test_a_perfect_judge_finds_right_labels_right_and_others_worthless(
    planted: Path, openai_server: OpenAIServer, method: str
) -> None:
    openai_server.always = answering(perfect)
    give(planted, {**RIGHT, 2: "fires on `w50x`"}, openai_server)
    scores, result = judge(planted, method)
    for score in scores:
        assert (score["judge"], score["method"], score["failed"], score["examples"]) == ("m", method, 0, 40)
        value = score["balanced_accuracy"]
        assert value == 1.0 if score["feature"] != 2 else value == pytest.approx(0.5, abs=0.2)
        assert score["low"] < value and score["auroc_low"] < score["auroc"]
    assert result["scored"] == FEATURES and result["methods"][method]["features"] == FEATURES
    assert len(openai_server.seen) == 8 * FEATURES
    assert (result["prompt_tokens"], result["answer_tokens"]) == (100 * 8 * FEATURES, 20 * 8 * FEATURES)


def test_a_label_is_scored_only_by_the_methods_that_are_left(planted: Path, openai_server: OpenAIServer) -> None:
    openai_server.always = answering(perfect)
    give(planted, {0: RIGHT[0], 1: RIGHT[1]}, openai_server)
    given = json.loads((planted / "given.json").read_text())
    given["features"][0]["methods"] = ["fuzzing"]
    (planted / "given.json").write_text(json.dumps(given))
    scores, result = judge(planted, "detection", "fuzzing")
    assert sorted((one["feature"], one["method"]) for one in scores) == [
        (0, "fuzzing"), (1, "detection"), (1, "fuzzing"),
    ]  # fmt: skip
    assert result["scored"] == 2 and len(openai_server.seen) == 3 * 8


def test_a_judge_that_always_says_yes_is_worth_a_coin(planted: Path, openai_server: OpenAIServer) -> None:
    openai_server.always = answering(lambda _word, _text: 100)
    give(planted, RIGHT, openai_server)
    scores, result = judge(planted, "detection", "fuzzing")
    assert {(score["balanced_accuracy"], score["auroc"]) for score in scores} == {(0.5, 0.5)}
    assert [result["methods"][method]["mean"] for method in ("detection", "fuzzing")] == [0.5, 0.5]


def test_a_judge_that_refuses_gives_no_scores_and_is_counted(planted: Path, openai_server: OpenAIServer) -> None:
    openai_server.always = lambda _body: content(None, refusal="I'm sorry, I cannot help with that.")
    give(planted, RIGHT, openai_server)
    scores, result = judge(planted, "tokens", "detection")
    assert {score["method"] for score in scores} == {"tokens"} and len(scores) == FEATURES
    assert (result["scored"], result["failed"]) == (0, FEATURES)
    assert result["reasons"] == {"detection: the judge refused": FEATURES}
    assert "detection" not in result["methods"]
    assert result["partial"] == f"{FEATURES} of {FEATURES} features failed: detection: the judge refused ({FEATURES})"


def test_a_judge_that_refuses_again_and_again_is_not_asked_for_ever(planted: Path, openai_server: OpenAIServer) -> None:
    openai_server.always = lambda _body: content("I cannot say.")
    give(planted, {n: RIGHT[n % FEATURES] for n in range(FEATURES)}, openai_server)
    given = json.loads((planted / "given.json").read_text())
    (planted / "given.json").write_text(json.dumps({**given, "features": given["features"] * 20}))
    with pytest.raises(Refused, match=r"the first 20 features all failed.*the judge refused"):
        judge(planted, "detection")
    assert len(openai_server.seen) <= 8 * 24


def test_examples_without_a_usable_answer_count_as_wrong(planted: Path, openai_server: OpenAIServer) -> None:
    good = answering(perfect)

    def answer(body: Any) -> Reply:
        odd = len(openai_server.seen) % 4 == 0
        return content('{"scores": [1, 2]}') if odd else good(body)

    openai_server.always = answer
    give(planted, {1: RIGHT[1]}, openai_server)
    (score,), result = judge(planted, "detection", concurrency=1)
    assert score["failed"] == 10 and score["examples"] == 40
    assert score["tp"] + score["tn"] == 30 and score["fp"] == score["fn"] == 0
    assert score["balanced_accuracy"] == pytest.approx(0.75)
    assert result["methods"]["detection"]["failed"] == 10 and result["scored"] == 1


def test_a_server_that_fails_now_and_then_costs_examples_not_the_job(
    planted: Path, openai_server: OpenAIServer
) -> None:
    good = answering(perfect)
    openai_server.always = lambda body: error(400, "odd") if len(openai_server.seen) % 8 == 3 else good(body)
    give(planted, RIGHT, openai_server)
    scores, result = judge(planted, "detection", concurrency=1)
    assert len(scores) == FEATURES and result["scored"] == FEATURES
    assert all(0 < score["failed"] <= 10 for score in scores)


def test_a_server_that_only_fails_ends_as_features_that_failed(planted: Path, openai_server: OpenAIServer) -> None:
    good = answering(perfect)
    openai_server.always = lambda body: good(body) if len(openai_server.seen) <= 8 else error(400, "odd")
    give(planted, RIGHT, openai_server)
    scores, result = judge(planted, "detection", concurrency=1)
    assert len(scores) == 1 and (result["scored"], result["failed"]) == (1, FEATURES - 1)
    assert list(result["reasons"].values()) == [FEATURES - 1] and "odd" in next(iter(result["reasons"]))


def test_the_same_seed_scores_the_same(planted: Path, openai_server: OpenAIServer) -> None:
    openai_server.always = answering(lambda word, text: 1 + 98 * (hash((word, len(text))) % 97) / 97)
    give(planted, RIGHT, openai_server)

    def scored(seed: int) -> list[dict[str, Any]]:
        return sorted(
            judge(planted, "tokens", "detection", seed=seed)[0], key=lambda one: (one["method"], one["feature"])
        )

    first = scored(0)
    assert first == scored(0) != scored(1)


def test_what_cannot_be_scored_is_counted_with_its_reason(planted: Path) -> None:
    give(planted, {0: RIGHT[0], FEATURES: "never fires"})
    result = run_job(planted, "score", sae="s")
    assert (result["scored"], result["unscored"], result["failed"]) == (1, 1, 0)
    assert list(result["reasons"]) == ["it never fires in the text that was read: extract over more tokens"]
    assert "partial" not in result and next(iter(result["reasons"])).startswith("it never fires")


def test_a_budget_ends_it_with_what_is_there(planted: Path, openai_server: OpenAIServer) -> None:
    openai_server.always = answering(perfect)
    give(planted, RIGHT, openai_server)
    scores, result = judge(planted, "detection", concurrency=1, max_tokens=5_000)
    assert 0 < len(scores) < FEATURES and result["prompt_tokens"] + result["answer_tokens"] <= 5_000
    assert "max_tokens is reached" in result["partial"] and f"of {FEATURES} features are left" in result["partial"]


def test_no_answer_is_paid_for_of_a_feature_that_the_budget_leaves_without_score(
    planted: Path, openai_server: OpenAIServer
) -> None:
    openai_server.always = answering(perfect)
    give(planted, RIGHT, openai_server)
    scores, result = judge(planted, "detection", concurrency=4, max_tokens=8_000)
    assert 1 < len(scores) < FEATURES and len(openai_server.seen) == 8 * len(scores)
    assert f"{FEATURES - len(scores)} of {FEATURES} features are left" in result["partial"]
    used = json.loads((planted / "used.json").read_text())
    assert used == {"prompt_tokens": 100 * 8 * len(scores), "answer_tokens": 20 * 8 * len(scores)}
    given = json.loads((planted / "given.json").read_text())
    (planted / "given.json").write_text(json.dumps({**given, "used": {"prompt_tokens": 7_900, "answer_tokens": 0}}))
    assert judge(planted, "detection", max_tokens=8_000)[0] == []


def test_texts_of_features_without_score_are_counted_among_those_that_failed(
    planted: Path, openai_server: OpenAIServer
) -> None:
    good = answering(perfect)
    openai_server.always = lambda body: good(body) if len(openai_server.seen) <= 10 else content("No.")
    give(planted, {0: RIGHT[0], 1: RIGHT[1]}, openai_server)
    scores, result = judge(planted, "detection", concurrency=1)
    assert len(scores) == 1 and result["failed"] == 1
    assert result["methods"]["detection"]["failed"] == 30


def test_no_extraction_is_said_in_one_sentence(planted: Path, tmp_path: Path) -> None:
    give(tmp_path, RIGHT)
    with pytest.raises(Refused):
        run_job(tmp_path, "score", sae="s")


def test_a_stop_is_obeyed_at_once_and_what_was_found_is_sent(
    planted: Path, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mistudiod.paths import Paths
    from mistudiod.specs import Score
    from mistudiod.worker.score import run

    link = Link(planted, Paths(planted))
    good = answering(perfect)

    def answer(body: Any) -> Reply:
        if len(openai_server.seen) <= 8:
            return good(body)
        link.hear("stop")
        return Reply(hangs=True)

    openai_server.always = answer
    give(planted, RIGHT, openai_server)
    spec = Score(sae="s", methods=["detection"], endpoint="ours", model="m", concurrency=1)
    with pytest.raises(Asked):
        run(spec, link)
    sent = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [len(event["scores"]) for event in sent if event["event"] == "scores"] == [1]
