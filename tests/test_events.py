"""Lines between worker and daemon: every event round-trips, nothing else gets through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistudiod.events import (
    MAX_LINE_BYTES,
    MAX_LIVE_BYTES,
    Artifact,
    Failure,
    Lines,
    Live,
    LiveFeature,
    Metric,
    Progress,
    Result,
    Window,
    from_line,
    to_line,
)
from mistudiod.paths import Paths
from mistudiod.worker.link import Asked, Link

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
        assert reader.feed(b"x" * 10_000) == []
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
