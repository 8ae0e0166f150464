"""The resident worker, in a process of its own: what it keeps loaded, what it answers, and how it ends."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_records import record, windows, write_store
from hypothesis import given
from hypothesis import strategies as st
from resident import CONTEXT, D_SAE, DEAD, TEMPLATE, Resident, put_all, put_model, put_sae, put_text
from steered import change, sae_of
from tiny_models import tiny_tokenizer

from mistudiod.events import MAX_LINE_BYTES
from mistudiod.paths import Paths
from mistudiod.worker.link import EXIT_INVALID, EXIT_MEMORY, EXIT_STOPPED, EXIT_YIELDED, Link, Refused
from mistudiod.worker.loaded import MOST_SAES
from mistudiod.worker.recipe import sha256_of
from mistudiod.worker.spelling import Spelling
from mistudiod.worker.steering import Order, _batches

EDIT = {"feature": 3, "strength": 2}
ASKED: dict[str, Any] = {"sae": "s", "prompt": "def f(", "steering": [EDIT], "max_tokens": 8}
LONG = {**ASKED, "max_tokens": CONTEXT - 40, "samples": 4, "temperature": 0}  # to the last token: seconds
AT_ONCE = 20  # tokens at most from a word to its effect: a thread hears it
Start = Callable[..., Resident]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_all(tmp_path_factory.mktemp("session"))


@pytest.fixture(scope="module")
def session(data: Path) -> Iterator[Resident]:
    resident = Resident(data, saes=["s"])
    resident.until("loaded")
    yield resident
    resident.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A session of the test's own, on ``data`` or on a folder of its own too."""
    started: list[Resident] = []

    def begin(data: Path | None = None, first: str = "loaded", **spec: Any) -> Resident:
        started.append(Resident(data or put_all(tmp_path), **spec))
        started[-1].until(first)
        return started[-1]

    yield begin
    for one in started:
        one.close()


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("seconds", "tokens_per_s")}


def told(resident: Resident, request: int) -> dict[int, str]:
    """The text of each row, as it was told while it was written."""
    texts: dict[int, str] = {}
    for event in resident.said:
        if event["event"] == "wrote" and event["request"] == request:
            for piece in event["texts"]:
                texts[piece["row"]] = texts.get(piece["row"], "") + piece["text"]
    return texts


# -- what it writes --------------------------------------------------------------------------------------------------


def test_texts_are_told_while_they_are_written_and_the_result_is_what_was_told(session: Resident) -> None:
    request = session.ask("steer", **ASKED, samples=2, sweep=[-1, 0, 1], seed=5)
    first, result = session.until("wrote", request=request), session.answer(request)["result"]
    assert first["tokens"] == 1
    rows = [text for n in range(2) for text in (result["baselines"][n], *result["steered"][3 * n : 3 * n + 3])]
    assert [rows[row]["text"] for row in range(8)] == [told(session, request).get(row, "") for row in range(8)]
    assert [one["sample"] for one in rows] == [0] * 4 + [1] * 4
    assert [one["variant"] for one in result["steered"]] == [0, 1, 2] * 2
    assert [one["strengths"][0]["strength"] for one in result["steered"]] == [-2, 0, 2] * 2
    assert result["baseline"] == result["baselines"][0]
    for one in rows:
        assert "".join(one["tokens"]) == one["text"] and len(one["tokens"]) == len(one["ids"]) <= 8
    for pushed, plain in ((result["steered"][3 * n + 1], result["baselines"][n]) for n in range(2)):
        assert pushed["ids"] == plain["ids"] and pushed["kl"] == 0 and pushed["no_effect"] is None
    kls = [one["kl"] for one in result["steered"]]
    assert min(kls[0], kls[2], kls[3], kls[5]) > 0 and result["steered"][2]["change_ratio"] > 0
    assert all(len(one["kl_tokens"]) == len(one["ids"]) for one in result["steered"])


def test_a_result_says_everything_that_made_it(session: Resident, data: Path) -> None:
    result = session.result("steer", **ASKED, seed=3)
    assert result["edits"] == [
        {**EDIT, "sae": "s", "op": "add", "scope": "all", "hook": "blocks.1.hook_resid_post",
         "maximum": result["edits"][0]["maximum"], "formula": result["edits"][0]["formula"]}
    ]  # fmt: skip
    assert result["edits"][0]["maximum"] > 0 and "h +=" in result["edits"][0]["formula"]
    assert {name: result[name] for name in ("sae", "model", "precision", "device", "prompt", "seed")} == {
        "sae": "s", "model": "tiny", "precision": "fp32", "device": "cpu", "prompt": "def f(", "seed": 3,
    }  # fmt: skip
    made = result["made"]
    assert made["sae_sha256"] == {"s": sha256_of(data / "saes" / "s" / "sae_weights.safetensors")}
    assert made["model_sha256"] == sha256_of(data / "hf-tiny" / "model.safetensors")
    assert made["tokenizer_sha256"] == sha256_of(data / "hf-tiny" / "tokenizer.json")
    assert made["rows_at_once"] == 2 and made["threads"] >= 1 and made["model_revision"] is None
    assert {"mistudio", "torch", "transformers", "python"} <= made.keys()


def test_the_same_request_gives_the_same_bits_again(session: Resident) -> None:
    asked = {**ASKED, "samples": 2, "sweep": [-2, 2], "top_p": 0.9, "repetition_penalty": 1.2, "seed": 11}
    first, other = session.result("steer", **asked), session.result("steer", **{**asked, "seed": 12})
    assert timeless(session.result("steer", **asked)) == timeless(first) != timeless(other)


def test_rows_in_several_batches_are_the_rows_of_one(data: Path, session: Resident, start: Start) -> None:
    asked = {**ASKED, "samples": 3, "sweep": [-1, 1, 2], "seed": 4, "max_tokens": 12}
    whole = session.result("steer", **asked)
    assert whole["made"]["rows_at_once"] == 12
    for at_once in (1, 3, 9):
        split = start(data, saes=["s"], rows_at_once=at_once)
        result = split.result("steer", **asked)
        assert result["made"]["rows_at_once"] == min(at_once, 8)  # two samples of four rows
        for kind in ("baselines", "steered"):
            assert [one["ids"] for one in result[kind]] == [one["ids"] for one in whole[kind]]
            assert [one.get("kl") for one in result[kind]] == pytest.approx([one.get("kl") for one in whole[kind]])
        rows = [text for n in range(3) for text in (result["baselines"][n], *result["steered"][3 * n : 3 * n + 3])]
        assert told(split, 1) == {row: one["text"] for row, one in enumerate(rows) if one["text"]}
        split.close()


def test_a_run_can_be_written_again_with_as_many_rows_at_once_as_before(
    data: Path, session: Resident, start: Start
) -> None:
    asked = {**ASKED, "samples": 3, "sweep": [-1, 1, 2], "temperature": 1}
    small = start(data, saes=["s"], rows_at_once=3)
    first = small.result("steer", **asked)
    again = session.result("steer", **asked, rows_at_once=first["made"]["rows_at_once"])
    assert timeless(again) == timeless(first)
    assert small.result("steer", **asked, rows_at_once=9)["made"]["rows_at_once"] == 3


def test_two_edits_of_one_place_change_it_by_what_they_add_together(session: Resident) -> None:
    def ratio(*strengths: float) -> float:
        asked = {**ASKED, "steering": [{**EDIT, "strength": one} for one in strengths], "max_tokens": 1}
        found: float = session.result("steer", **asked)["steered"][0]["change_ratio"]
        return found

    assert ratio(1, 1) == pytest.approx(ratio(2), rel=1e-4) and ratio(1.5, -1) == pytest.approx(ratio(0.5), rel=1e-4)


def test_edits_of_more_saes_than_are_kept_are_refused(data: Path, session: Resident) -> None:
    for n in range(MOST_SAES):
        put_sae(data, f"many-{n}", seed=n)
    steering = [EDIT, *({**EDIT, "sae": f"many-{n}"} for n in range(MOST_SAES))]
    assert session.denial("steer", **{**ASKED, "steering": steering})["field"] == "steering"
    assert session.result("steer", **{**ASKED, "steering": steering[:-1]})["steered"]


def test_strengths_of_0_are_written_with_the_baseline_whatever_fits_at_once() -> None:
    sae = sae_of()
    variants = [[], [change(sae)], [change(sae, strength=0.0)], [change(sae, "clamp")], [change(sae, maximum=0.0)]]
    order = Order(torch.tensor([1]), variants, [0, 1, 2], set())
    for at_once, batches in {
        1: [[0, 2, 4], [1], [3], [5, 7, 9], [6], [8], [10, 12, 14], [11], [13]],
        2: [[0, 1, 2, 4], [3], [5, 6, 7, 9], [8], [10, 11, 12, 14], [13]],
        7: [[*range(10)], [*range(10, 15)]],
    }.items():
        found = list(_batches(order, at_once))
        assert [rows for _, rows, _, _ in found] == batches
        assert max(texts for texts, *_ in found) == min(at_once, 6)
        assert all(variants[row % 5] is one for _, rows, seeds, some in found
                   for row, one in zip(rows, some * len(seeds), strict=True))  # fmt: skip


def test_features_of_two_saes_at_two_hooks_are_changed_together(session: Resident) -> None:
    steering = [EDIT, {"sae": "later", "feature": 9, "op": "ablate"}]
    result = session.result("steer", **{**ASKED, "steering": steering})
    assert [one["sae"] for one in result["edits"]] == ["s", "later"]
    assert set(result["made"]["sae_sha256"]) == {"s", "later"}
    assert [(one["sae"], one["feature"]) for one in result["steered"][0]["activations"]] == [("s", 3), ("later", 9)]


def test_why_an_edit_changed_nothing_is_said_of_each_feature(session: Resident) -> None:
    def reasons(steering: list[dict[str, Any]], **more: Any) -> list[tuple[int, str]]:
        (one,) = session.result("steer", **{**ASKED, "steering": steering, **more})["steered"]
        assert all(str(found["feature"]) in found["message"] for found in one["no_effect"] or [])
        return [(found["feature"], found["reason"]) for found in one["no_effect"] or []]

    assert reasons([{"feature": DEAD}, {"feature": DEAD, "op": "ablate"}]) == [(DEAD, "dead")] * 2
    assert reasons([{"feature": DEAD, "strength": 0}, {"feature": 3, "op": "scale", "strength": 1}]) == []
    assert reasons([{**EDIT, "scope": "generated"}], max_tokens=1) == [(3, "no token")]
    assert reasons([{**EDIT, "scope": "generated"}], max_tokens=2) == []
    ablated = [{"feature": n, "op": "ablate"} for n in range(D_SAE) if n != DEAD]
    found = reasons(ablated, prompt="d", max_tokens=1)
    assert 0 < len(found) < len(ablated) and {reason for _, reason in found} == {"inactive"}
    assert reasons([{"feature": 3, "strength": 1e-9}]) == [(3, "too small")]


def test_a_hook_that_does_not_run_is_an_error_and_never_a_text(data: Path, session: Resident) -> None:
    put_sae(data, "backwards")
    path = data / "saes" / "backwards" / "recipe.json"
    recipe = json.loads(path.read_text())
    recipe["spec"]["hook_out"] = "blocks.0.hook_resid_post"  # before it is read
    path.write_text(json.dumps(recipe))
    denied = session.denial("steer", **{**ASKED, "sae": "backwards", "steering": [{"feature": 3, "op": "ablate"}]})
    assert denied["code"] == "internal" and "blocks.0.hook_resid_post" in denied["message"]
    assert "HookDidNotRun" in session.log() and session.result("steer", **ASKED)


def test_the_largest_requests_fit_a_line(session: Resident) -> None:
    request = session.ask("steer", **{**ASKED, "samples": 64, "max_tokens": 128, "temperature": 1.5})
    event = session.answer(request)
    tokens = sum(len(one["ids"]) for kind in ("baselines", "steered") for one in event["result"][kind])
    assert tokens > 0.7 * 16_384 and len(json.dumps(event)) < MAX_LINE_BYTES / 2
    many = [{"feature": n % D_SAE, "strength": 1.2345678} for n in range(100)]
    event = session.answer(session.ask("steer", **{**ASKED, "steering": many, "samples": 20, "max_tokens": 1}))
    assert len(event["result"]["steered"]) == 20 and len(json.dumps(event)) < MAX_LINE_BYTES / 2


# -- what it keeps loaded --------------------------------------------------------------------------------------------


def test_what_is_loaded_is_not_loaded_again_and_another_sae_leaves_the_model_where_it_is(start: Start) -> None:
    resident = start(saes=["s"])
    assert resident.said[-1]["saes"] == ["s"] and resident.said[-1]["precision"] == "fp32"
    before = len(resident.said)
    found = resident.result("load", model="tiny", saes=["s"])
    assert [event["event"] for event in resident.said[before:]] == ["loaded", "replied"]
    assert found == {"model": "tiny", "precision": "fp32", "device": "cpu", "saes": ["s"]}
    resident.result("steer", **{**ASKED, "sae": "later"})
    stages = {event["stage"] for event in resident.said[before:] if event["event"] == "progress"}
    assert "load model" not in stages
    assert [event["saes"] for event in resident.said if event["event"] == "loaded"][-1] == ["s", "later"]


def test_an_sae_whose_files_have_changed_is_loaded_anew(tmp_path: Path, start: Start) -> None:
    resident = start(saes=["s"])
    before = resident.result("steer", **ASKED)
    put_sae(tmp_path, "s", seed=5)
    after = resident.result("steer", **ASKED)
    assert after["made"]["sae_sha256"] != before["made"]["sae_sha256"]
    assert after["made"]["sae_sha256"]["s"] == sha256_of(tmp_path / "saes" / "s" / "sae_weights.safetensors")
    assert after["baseline"] == before["baseline"] | {"activations": after["baseline"]["activations"]}
    path = tmp_path / "models" / "tiny" / "model.json"
    path.write_text(path.read_text() + " ")
    assert "another model by now" in resident.denial("load", model="tiny")["message"]


def test_maxima_are_those_of_the_newest_extraction_that_fits_else_of_a_pass_that_is_kept(
    tmp_path: Path, start: Start
) -> None:
    resident = start(saes=["s"])
    sha256 = sha256_of(tmp_path / "saes" / "s" / "sae_weights.safetensors")

    def maximum() -> float:
        return float(resident.result("steer", **ASKED)["edits"][0]["maximum"])

    found = maximum()
    kept = tmp_path / "steering" / f"{sha256}.json"
    assert json.loads(kept.read_text())["maxima"][3] == pytest.approx(found, rel=1e-5)
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    rng = np.random.default_rng(0)
    read = windows(rng)
    largest = {}
    for number in ("9", "10"):
        records = [record(rng, read, D_SAE) for _ in range(D_SAE)]
        write_store(tmp_path / "features" / "s" / number, records, read, sae_sha256=sha256)
        largest[number] = records[3].maximum
        assert maximum() == pytest.approx(largest[number], rel=1e-5)
    write_store(tmp_path / "features" / "s" / "11", records, read, sae_sha256="0" * 64)
    (tmp_path / "features" / "s" / "10" / "pages.bin").write_bytes(b"")
    assert maximum() == pytest.approx(largest["9"], rel=1e-5)
    assert "passed over" in resident.log()


def test_without_extraction_and_text_the_sentence_says_what_to_do(tmp_path: Path, start: Start) -> None:
    resident = start(saes=["s"])
    (tmp_path / "tokens" / "t" / "tokens.bin").unlink()
    denied = resident.denial("steer", **ASKED)
    assert denied["code"] == "invalid" and denied["field"] == "sae" and "extract features" in denied["message"]


# -- what it refuses -------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("steer", {"steering": [EDIT, {"feature": D_SAE}]}, "steering.1.feature", f"0 to {D_SAE - 1}"),
    ("steer", {"sae": "nope"}, "sae", "there is no SAE called nope"),
    ("steer", {"steering": [{**EDIT, "sae": "nope"}]}, "steering.0.sae", "there is no SAE called nope"),
    ("steer", {"sae": "of-other"}, "sae", "of the model other, not of tiny"),
    ("steer", {"sae": "of-weights"}, "sae", "sha256 000000000000"),
    ("steer", {"prompt": "x " * CONTEXT}, "prompt", str(CONTEXT)),
    ("steer", {"max_tokens": CONTEXT}, "max_tokens", str(CONTEXT)),
    ("steer", {"steering": [{**EDIT, "scope": "from:9"}]}, "steering.0.scope", "0 to 4"),
    ("steer", {"prompt": None, "messages": [{"role": "user", "content": "x"}]}, "messages", "no chat template"),
    ("steer", {"precision": "bf16"}, "precision", "fp32, not bf16"),
    ("steer", {"temperature": float("nan")}, "temperature", ""),
    ("steer", {"steering": []}, "steering", ""),
    ("steer", {"steering": [{"feature": 1}] * 100, "samples": 21, "max_tokens": 1}, "steer", "more than one answer"),
    ("sing", {}, "kind", "load, steer"),
    ("load", {"model": "other"}, "model", "the model tiny, not other"),
    ("load", {"model": "tiny", "saes": ["s", "nope"]}, "saes.1", "there is no SAE called nope"),
    ("complete", {"model": "tiny", "prompt": "x", "steering": [EDIT]}, "steering.0.sae", "which SAE"),
    ("calibrate", {"sae": "s", "features": [3, D_SAE]}, "features", f"0 to {D_SAE - 1}"),
    ("calibrate", {"sae": "s", "features": [3, DEAD]}, "features", "leave out 7"),
]


@pytest.mark.parametrize(("kind", "fields", "field", "words"), REFUSED)
def test_bad_input_gets_one_sentence_with_its_field_and_the_worker_stays(
    session: Resident, data: Path, kind: str, fields: dict[str, Any], field: str, words: str
) -> None:
    if not (data / "saes" / "of-other").exists():
        put_sae(data, "of-other", model="other")
        put_sae(data, "of-weights", weights={"model.safetensors": {"bytes": 1, "sha256": "0" * 64}})
    denied = session.denial(kind, **({**ASKED, **fields} if kind == "steer" else fields))
    assert denied["code"] == "invalid" and denied.get("field", kind) == field
    assert words in denied["message"] and "\n" not in denied["message"]


def test_an_error_of_our_own_is_said_and_logged_and_the_worker_stays(data: Path, session: Resident) -> None:
    put_sae(data, "cut")
    path = data / "saes" / "cut" / "recipe.json"
    path.write_text(json.dumps({"sae": "cut", "model": {"name": "tiny"}}))
    denied = session.denial("steer", **{**ASKED, "sae": "cut"})
    assert denied["code"] == "internal" and "Traceback" in session.log()
    assert session.result("steer", **ASKED)


# -- chat and completions --------------------------------------------------------------------------------------------


def test_a_conversation_is_put_by_the_models_own_template_with_one_bos(tmp_path: Path, start: Start) -> None:
    put_model(tmp_path, "chatty", TEMPLATE)
    put_sae(tmp_path, "c", model="chatty")
    put_text(tmp_path, "chatty")
    resident = start(tmp_path, model="chatty", saes=["c"])
    messages = [{"role": "user", "content": "hi"}]
    asked = {**ASKED, "sae": "c", "prompt": None, "messages": messages}
    result = resident.result("steer", **asked)
    assert result["prompt"] == "<|endoftext|>user: hi\nassistant:"
    ids = tiny_tokenizer()("<|endoftext|>user: hi\nassistant:", add_special_tokens=False)["input_ids"]
    assert result["prompt_tokens"] == len(ids)
    completed = resident.result("complete", model="chatty", messages=messages, max_tokens=8, seed=result["seed"])
    assert completed["texts"][0]["text"] == result["baseline"]["text"]
    denied = resident.denial("steer", **{**asked, "messages": [{"role": "system", "content": "x"}, *messages]})
    assert denied["field"] == "messages" and "no system here" in denied["message"]


def test_a_completion_is_the_steered_text_without_its_baseline(session: Resident) -> None:
    steered = session.result("steer", **ASKED, samples=2)
    edits = [{**EDIT, "sae": "s"}]
    completed = session.result("complete", model="tiny", prompt="def f(", steering=edits, max_tokens=8, samples=2)
    assert [one["text"] for one in completed["texts"]] == [one["text"] for one in steered["steered"]]
    assert completed["completion_tokens"] == sum(one["tokens"] for one in completed["texts"]) == 16
    assert completed["prompt_tokens"] == steered["prompt_tokens"] and completed["no_effect"] is None
    edits = [{"feature": DEAD, "sae": "s"}]
    completed = session.result("complete", model="tiny", prompt="def f(", steering=edits, max_tokens=8)
    assert [one["reason"] for one in completed["no_effect"]] == ["dead"]
    assert completed["texts"][0]["text"] == steered["baseline"]["text"]


def test_a_completion_ends_before_a_stop_string_even_one_across_tokens(session: Resident) -> None:
    asked = {"model": "tiny", "prompt": "def f(", "max_tokens": 60, "samples": 3, "seed": 2}
    whole = session.result("complete", **asked)["texts"]
    text = whole[1]["text"]
    stop = text[20:23]
    request = session.ask("complete", **asked, stop=[stop, "never there"])
    texts = session.answer(request)["result"]["texts"]
    for before, one in zip(whole, texts, strict=True):
        assert one["text"] == before["text"].partition(stop)[0]
        assert one["finish"] == ("stop" if stop in before["text"] else before["finish"])
    assert texts[1]["tokens"] < whole[1]["tokens"]
    assert told(session, request) == {row: one["text"] for row, one in enumerate(texts) if one["text"]}


WORDS = [b"", "é".encode()[:1], "é".encode()[1:], b"a", b"b", b"ab", b"ba", "🙂".encode(), b"abab", b"\xff"]


@given(st.lists(st.integers(0, len(WORDS) - 1), max_size=20), st.lists(st.sampled_from(["ab", "aab", "é", "ba🙂"])))
def test_what_is_shown_is_the_text_before_the_first_stop_however_tokens_cut_it(
    ids: list[int], stops: list[str]
) -> None:
    text = b"".join(WORDS[id] for id in ids).decode(errors="replace")
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    spelling = Spelling(WORDS, stops)
    shown = [spelling.add(id) for id in ids]
    assert "".join([*shown, spelling.end()]) == text[: min(ends, default=len(text))]
    assert spelling.stopped == bool(ends)


# -- useful strengths ------------------------------------------------------------------------------------------------


def test_a_range_is_found_for_each_feature_and_progress_is_told(session: Resident, data: Path) -> None:
    request = session.ask("calibrate", sae="s", features=[3])
    progress = session.until("progress")
    assert progress["stage"] == "calibrate" and progress["total"] == 1
    found = session.answer(request)["result"]
    assert found["sae"] == "s" and found["model"] == "tiny"
    assert found["sae_sha256"] == sha256_of(data / "saes" / "s" / "sae_weights.safetensors")
    (one,) = found["ranges"]
    assert one["feature"] == 3 and set(one["kl"]) == {"0.1", "0.5", "2"} and one["maximum"] > 0


# -- how requests and sessions end -----------------------------------------------------------------------------------


def test_a_cancel_takes_hold_at_the_next_token_and_what_waits_goes_on(session: Resident) -> None:
    first, second, third = session.ask("steer", **LONG), session.ask("steer", **LONG), session.ask("steer", **ASKED)
    session.until("wrote", request=first)
    with session.frozen():
        before = session.written(first)
        session.say(f"cancel {second}")
        session.say(f"cancel {first}")
        session.say("cancel 999")
        session.say('{"request": ')
    for request in (first, second):
        assert session.answer(request)["code"] == "cancelled"
    assert session.written(first) <= before + AT_ONCE and session.written(second) == 0
    assert session.answer(third)["event"] == "replied"
    calibrating = session.ask("calibrate", sae="s", features=[3, 4, 5, 6, 8, 9])
    session.until("progress")
    session.say(f"cancel {calibrating}")
    assert session.answer(calibrating)["code"] == "cancelled"


def test_a_cancel_takes_hold_while_a_long_prompt_is_read(session: Resident) -> None:
    sweep = [1 + n / 50 for n in range(50)]
    reading = session.ask("steer", **{**ASKED, "prompt": "q" * (CONTEXT - 40), "sweep": sweep, "samples": 1})
    time.sleep(0.3)
    session.say(f"cancel {reading}")
    assert session.answer(reading)["code"] == "cancelled"
    assert not any(event["event"] == "wrote" and event["request"] == reading for event in session.said)


@pytest.mark.parametrize(("command", "code"), [("stop", EXIT_STOPPED), ("pause", EXIT_YIELDED)])
def test_a_stop_or_pause_ends_a_session_at_the_next_token(data: Path, start: Start, command: str, code: int) -> None:
    busy = start(data, saes=["s"])
    request = busy.ask("steer", **LONG)
    busy.until("wrote")
    with busy.frozen():
        before = busy.written(request)
        busy.say(command)
    assert busy.ended() == code and busy.written(request) <= before + AT_ONCE
    assert busy.said[-1]["event"] == "denied" and busy.said[-1]["request"] == request
    assert busy.said[-1]["code"] == "cancelled"


def test_an_idle_session_ends_at_a_stop_and_with_the_daemon(data: Path, start: Start) -> None:
    idle = start(data)
    idle.say("stop")
    assert idle.ended() == EXIT_STOPPED
    alone = start(data)
    assert alone.process.stdin
    alone.process.stdin.close()
    assert alone.ended() == EXIT_YIELDED
    terminated = start(data)
    terminated.process.terminate()
    assert terminated.ended() == EXIT_STOPPED


def test_a_session_that_was_killed_leaves_nothing_and_the_next_one_writes_the_same(
    tmp_path: Path, start: Start
) -> None:
    killed = start(saes=["s"])
    expected = killed.result("steer", **ASKED)
    killed.ask("steer", **LONG)
    killed.until("wrote")
    killed.process.kill()
    assert killed.ended() == -9
    assert not list(tmp_path.rglob(".partial-*"))
    again = start(tmp_path, saes=["s"])
    assert timeless(again.result("steer", **ASKED)) == timeless(expected)


def test_a_session_that_runs_out_of_memory_says_so_and_ends(data: Path, start: Start) -> None:
    resident = start(data, saes=["s"])
    resident.result("steer", **ASKED)
    status = Path(f"/proc/{resident.process.pid}/status").read_text()
    used = int(status.partition("VmSize:")[2].split()[0]) * 1024
    resource.prlimit(resident.process.pid, resource.RLIMIT_AS, (used + (2 << 20), used + (2 << 20)))
    denied = resident.denial("steer", **{**ASKED, "samples": 64, "max_tokens": 128})
    assert denied["code"] == "out_of_memory" and "memory" in denied["message"]
    assert resident.ended() == EXIT_MEMORY
    assert resident.said[-1]["event"] == "failure" and resident.said[-1]["code"] == "out_of_memory"


def test_a_session_whose_model_is_not_there_says_so_and_ends(data: Path, start: Start) -> None:
    resident = start(data, first="failure", model="nowhere")
    failure = resident.said[-1]
    assert failure["code"] == "invalid" and failure["field"] == "model" and "nowhere" in failure["message"]
    assert resident.ended() == 64


def test_an_answer_for_which_no_line_has_room_is_refused_and_not_lost(tmp_path: Path) -> None:
    link = Link(tmp_path, Paths(tmp_path))
    for say in (link.result, lambda result: link.replied(1, result)):
        with pytest.raises(Refused, match="ask for less"):
            say({"text": "a long text; " * (MAX_LINE_BYTES // 12)})


def test_a_spec_of_another_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    old = Resident(tmp_path, strengths=[{"feature": 1, "strength": 5}])
    assert old.until("failure")["message"].startswith("the job's spec is not one of this version (strengths: ")
    assert (old.ended(), old.said[-1]["field"]) == (EXIT_INVALID, "strengths")
    old.close()


def test_an_sae_of_which_a_bit_has_turned_over_is_refused(tmp_path: Path, start: Start) -> None:
    resident = start(saes=["s"])
    weights = tmp_path / "saes" / "s" / "sae_weights.safetensors"
    recipe = weights.with_name("recipe.json")
    recipe.write_text(json.dumps({**json.loads(recipe.read_text()), "sae_sha256": sha256_of(weights)}))
    resident.result("steer", **ASKED)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    denied = resident.denial("steer", **ASKED)
    assert denied["field"] == "sae"
    assert denied["message"].startswith("the weights of s are not those that it was made with")
