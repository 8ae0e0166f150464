"""Lines between worker and daemon: every event round-trips, nothing else gets through."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistudiod.events import (
    MAX_LABELS,
    MAX_LINE_BYTES,
    MAX_LIVE_BYTES,
    Artifact,
    Failure,
    Labelled,
    Lines,
    Live,
    LiveFeature,
    Metric,
    NewLabel,
    NewScore,
    NoLabel,
    Progress,
    Result,
    Scored,
    Window,
    from_line,
    to_line,
)
from mistudiod.paths import Paths
from mistudiod.worker import __main__ as worker
from mistudiod.worker.link import EXIT_YIELDED, Asked, Link

WINDOW = Window(value=1.5, before="im", token="port", after=" os\n")
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers(0, 2**60), st.dictionaries(st.text(max_size=20), st.none() | finite, max_size=50))
def test_a_metric_comes_back_as_it_went(step: int, values: dict[str, float | None]) -> None:
    event = Metric(step=step, values=values)
    assert from_line(to_line(event)) == event


@given(st.text(max_size=50), st.text(max_size=500))
def test_a_failure_comes_back_as_it_went(code: str, message: str) -> None:
    event = Failure(code=code, message=message)
    assert from_line(to_line(event)) == event
    assert to_line(event).count(b"\n") == 1


def test_the_other_events_come_back_as_they_went() -> None:
    for event in (
        Progress(stage="train", done=3, total=9, unit="tokens", eta_s=1.5),
        Metric(step=3, sae="a-w64", values={"fvu": 0.5, "dead": None}),
        Live(sae="a", step=3, features=[LiveFeature(feature=7, density=0.1, windows=[WINDOW, WINDOW])]),
        Artifact(noun="sae", name="a"),
        Result(result={"fvu": 0.1, "deep": {"x": [1, None]}}),
    ):
        assert from_line(to_line(event)) == event


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[1]", b"null", b'{"event":"x"}', b'{"event":"metric","step":-1,"values":{}}', b"\xff\xfe",
     b'{"event":"metric","step":1,"values":{"a":NaN}}', b'{"event":"artifact","noun":"x","name":"y"}',
     b'{"event":"live","step":1,"features":[{"feature":1,"density":NaN,"windows":[]}]}',
     b'{"event":"live","step":1,"features":' + b'[' + b'{"feature":1,"density":0,"windows":[]},' * 8
     + b'{"feature":1,"density":0,"windows":[]}]}',
     b'{"event":"metric","step":1,"sae":"' + b"x" * 65 + b'","values":{}}',
     b'{"event":"progress","stage":"x","done":1,"more":2}', b"[" * 10_000, b" " * (MAX_LINE_BYTES + 1)],
)  # fmt: skip
def test_what_is_no_event_is_none(line: bytes) -> None:
    assert from_line(line) is None


@given(st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b)), st.data())
def test_lines_are_the_same_however_the_bytes_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, got = Lines(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:end])
    assert got == lines


def test_an_endless_line_is_dropped_without_being_gathered() -> None:
    reader = Lines()
    assert reader.feed(b"good\n") == [b"good"]
    for _ in range(100):
        assert reader.feed(b"x" * 100_000) == []
        assert len(reader._rest) <= MAX_LINE_BYTES
    assert reader.feed(b"tail\ngood\n") == [b"good"]
    assert reader.dropped == 1


def test_a_metric_line_is_json_that_anyone_can_read() -> None:
    assert json.loads(to_line(Metric(step=1, values={"loss": 0.5}))) == {
        "event": "metric", "step": 1, "values": {"loss": 0.5},
    }  # fmt: skip


# -- the worker's end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a", "é", "語", "𝄞", "\x00", "\ud800"])
def test_live_features_fit_in_their_line_whatever_the_text(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    window = {"value": 1.0, "before": "<" + text * 5000, "token": text * 5000, "after": text * 5000 + ">"}
    one = {"feature": 1, "density": 0.5, "windows": [window] * 9}
    Link(tmp_path, Paths(tmp_path)).live("a", 3, [one] * 20)
    line = capsys.readouterr().err.encode()
    assert len(line) <= MAX_LIVE_BYTES
    found = from_line(line)
    assert isinstance(found, Live)
    assert (len(found.features), len(found.features[0].windows)) == (8, 5)
    kept = found.features[0].windows[0]
    assert kept.before and kept.token and "<" not in kept.before and ">" not in kept.after, "cut on the far side"


def test_what_is_asked_is_raised_between_steps_and_to_finalize_only_once(tmp_path: Path) -> None:
    link = Link(tmp_path, Paths(tmp_path))
    link.check()
    for command in ("finalize", "nonsense", "finalize"):
        link.hear(command)
    assert link.finalize is False
    with pytest.raises(Asked) as asked:
        link.check()
    assert (asked.value.what, link.finalize) == ("finalize", True)
    link.hear("finalize")
    link.check()  # what follows is not broken off by the same wish
    link.hear("pause")
    link.hear("stop")
    for _ in range(2):
        with pytest.raises(Asked) as asked:
            link.check()
        assert asked.value.what == "stop"


def test_a_wish_to_end_sooner_beats_that_to_finalize(tmp_path: Path) -> None:
    link = Link(tmp_path, Paths(tmp_path))
    link.hear("finalize")
    link.hear("stop")
    link.hear("finalize")
    assert link.asked == "stop"
    begun_so = Link(tmp_path, Paths(tmp_path), finalize=True)
    begun_so.hear("finalize")
    begun_so.check()


SCORE = {"feature": 1, "label": 2, "method": "fuzzing", "tp": 1, "fp": 2, "tn": 3, "fn": 4, "failed": 5, "examples": 15}


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200).filter(lambda text: text.strip()))
def test_labels_and_scores_come_back_as_they_went(text: str) -> None:
    labels = [NewLabel(feature=1, text=text, explanation=text, evidence={text: [text]}), NoLabel(feature=2, error=text)]
    for event in (
        Labelled(provider="ollama", model="m", template_sha256="a" * 64, extraction="3", labels=labels),
        Scored(extraction="3", scores=[NewScore(**SCORE, judge="m", balanced_accuracy=0.5)]),
    ):
        assert from_line(to_line(event)) == event
        assert to_line(event).count(b"\n") == 1


def labels_line(**about: object) -> bytes:
    one = {"feature": 1, "text": "x", **about}
    return json.dumps({"event": "labels", "provider": "ollama", "labels": [one]}).encode()


@pytest.mark.parametrize(
    "line",
    [
        labels_line(text=""), labels_line(text=" \n"), labels_line(text="x" * 201), labels_line(explanation="x" * 2001),
        labels_line(confidence=1.5), labels_line(feature=-1), labels_line(evidence={"x": "x" * 5000}),
        labels_line(error="both"), labels_line(status="accepted"), labels_line(text="\ud800"),
        labels_line().replace(b"ollama", b"person"), labels_line().replace(b"ollama", b"No Name"),
        json.dumps({"event": "labels", "provider": "x", "labels": [{"feature": 1, "error": "x" * 501}]}).encode(),
        json.dumps({"event": "labels", "provider": "x", "labels": [{"feature": 1, "text": "x"}] * 51}).encode(),
        json.dumps({"event": "scores", "scores": [{**SCORE, "balanced_accuracy": 1.5}]}).encode(),
        json.dumps({"event": "scores", "scores": [{**SCORE, "method": "guess"}]}).encode(),
        json.dumps({"event": "scores", "scores": [{**SCORE, "tp": -1}]}).encode(),
    ],
)  # fmt: skip
def test_a_label_or_score_that_is_none_is_dropped(line: bytes) -> None:
    assert from_line(line) is None
    assert from_line(labels_line()) is not None


@pytest.mark.parametrize("text", ["a", "é", "語", "\U0001d11e", "\0", "\ud800"])
def test_any_number_of_labels_is_said_in_lines_that_are_taken(tmp_path: Path, text: str) -> None:
    link, sent = Link(tmp_path, Paths(tmp_path)), []
    link._send = lambda event: sent.append(from_line(to_line(event)))  # type: ignore[method-assign]
    one = {"text": text * 300, "explanation": text * 3000, "confidence": None, "evidence": {"windows": [1] * 500}}
    labels = [{"feature": n, **one} for n in range(120)] + [{"feature": 120, "error": text * 900}]
    link.labels(provider="ollama", model="m", template=None, template_sha256=None, extraction="3", labels=labels)
    link.scores(extraction="3", scores=[SCORE] * 120)
    assert None not in sent
    assert [one.feature for event in sent[:-3] for one in event.labels] == list(range(121))
    assert all(len(event.labels) <= MAX_LABELS for event in sent[:-3])
    assert [len(event.scores) for event in sent[-3:]] == [50, 50, 20]


def test_a_worker_reads_what_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "given.json").write_text('{"extraction": "3", "features": []}')
    assert Link(tmp_path, Paths(tmp_path)).given() == {"extraction": "3", "features": []}


def test_a_worker_that_nobody_hears_any_more_leaves_as_at_the_end_of_its_lifeline() -> None:
    read, write = os.pipe()
    os.close(read)
    program = (
        "from pathlib import Path; from mistudiod.paths import Paths; from mistudiod.worker.link import Link; "
        f"Link(Path('.'), Paths(Path('.')), {write}).result({{}})"
    )
    left = subprocess.run([sys.executable, "-c", program], pass_fds=(write,))
    os.close(write)
    assert left.returncode == EXIT_YIELDED


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_worker_that_may_not_write_says_where_and_what_to_do(number: int) -> None:
    refused = OSError(number, os.strerror(number), "/data/tokens/.partial-t-1")
    code, exit_code = worker._classify(refused)
    assert (code, exit_code) == ("not_writable", 70)
    said = worker._sentence(code, refused)
    assert "/data/tokens/.partial-t-1" in said and os.strerror(number) in said and said.endswith("retry the job")
