"""The event stream as the client reads it: records, reconnection, and following a job whatever happens meanwhile."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistudio import Client
from mistudio.errors import Unreachable
from mistudio.progress import follow
from mistudio.stream import LONGEST_TRY_AGAIN_S, TRY_AGAIN_S, Records, listen
from studio import end, running, started


def read(chunks: list[bytes]) -> list[dict[str, object]]:
    records = Records()
    return [event for chunk in chunks for event in records.feed(chunk)]


def test_records_are_read_as_the_standard_says() -> None:
    text = 'retry: 2000\n\n: ping\n\nid: 4\nevent: job\ndata: {"a":\ndata: "\u2028é"}\n\ndata:1\n\nevent: x\n\n'
    assert read([text.encode()]) == [
        {"id": "4", "topic": "job", "data": {"a": "\u2028é"}},
        {"id": "4", "topic": "message", "data": 1},
    ]


@settings(deadline=None)
@given(st.lists(st.integers(1, 40)), st.sampled_from(["\n", "\r\n", "\r"]))
def test_records_do_not_depend_on_where_the_stream_is_cut(sizes: list[int], line_end: str) -> None:
    lines = ["id: 1", "event: job", 'data: "ä ←"', "", "data: 2", "", ": the end", ""]
    stream = "".join(line + line_end for line in lines).encode()
    edges = [0, *itertools.accumulate(sizes), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert [event["data"] for event in read(chunks)] == ["ä ←", 2]


def test_the_last_id_is_that_of_the_newest_whole_record_even_without_data() -> None:
    records = Records("3")
    assert list(records.feed(b"retry: 10\n\nid: 7\n\n")) == []
    assert records.last_id == "7"
    assert list(records.feed(b'id: 8\nevent: job\ndata: {"cut": "off"}\n')) == []
    assert records.last_id == "7"
    assert next(records.feed(b"id: 9\0\n\n"))["id"] == "8"


@pytest.mark.parametrize(
    ("line", "seconds"),
    [("250", 0.25), ("0", 0.0), ("soon", TRY_AGAIN_S), ("-1", TRY_AGAIN_S), ("99999999", LONGEST_TRY_AGAIN_S)],
)
def test_the_studio_says_how_soon_to_come_back(line: str, seconds: float) -> None:
    records = Records()
    assert list(records.feed(f"retry: {line}\n\n".encode())) == []
    assert records.retry_s == seconds


def test_the_first_connection_must_succeed() -> None:
    @contextmanager
    def connect(_last: str) -> Iterator[Iterator[bytes]]:
        raise Unreachable("nobody")
        yield iter(())

    with pytest.raises(Unreachable, match="nobody"):
        next(listen(connect))


def test_each_connection_goes_on_after_the_last_event_of_the_one_before() -> None:
    asked: list[str] = []
    sent = [
        b"retry: 0\nid: 5\n\n",
        b"id: 6\nevent: job\ndata: 1\n\nid: 7\nevent: job\nda",
        b"event: reset\nid: 9\ndata: {}\n\n",
    ]

    @contextmanager
    def connect(last: str) -> Iterator[Iterator[bytes]]:
        asked.append(last)
        yield iter([sent[len(asked) - 1]])

    events = list(itertools.islice(listen(connect, after="4"), 7))
    assert [(event["topic"], event["id"]) for event in events] == [
        *[("connected", "4"), ("lost", "5")],
        *[("connected", "5"), ("job", "6"), ("lost", "6")],
        *[("connected", "6"), ("reset", "9")],
    ]
    assert asked == ["4", "5", "6"]


# -- with real studios -----------------------------------------------------------------------------------------------


def test_no_event_is_lost_while_the_studio_is_started_anew(tmp_path: Path, port: int) -> None:
    data = tmp_path / "data"
    with running(data, port=port) as url:
        client = Client(url)
        events = client.events(["job"])
        assert next(events)["topic"] == "connected"
        job = client.add_dataset("/x", "slow", remote=True)["id"]
        heard = [next(events), next(events)]
    with running(data) as elsewhere, Client(elsewhere) as other:  # where the reader does not look
        other.stop(job)
        assert other.wait(job, 30)["state"] == "stopped"
    with running(data, port=port):
        while heard[-1]["data"].get("state") != "stopped":
            heard.append(next(events))
        told = [event for event in heard if event["topic"] == "job"]
        assert [int(event["id"]) for event in told] == sorted({int(event["id"]) for event in told})
        states = [event["data"]["state"] for event in told]
        assert states[:4] == ["queued", "running", "interrupted", "queued"]
    events.close()
    client.close()


def test_events_after_an_id_are_told_again(tmp_path: Path) -> None:
    with running(tmp_path / "data") as url, Client(url) as client:
        events = client.events(["job"])
        assert next(events)["topic"] == "connected"
        job = client.add_dataset("/x", "one", remote=True)["id"]
        seen = [next(events) for _ in range(3)]
        assert client.wait(job, 30)["state"] == "done"
        again = client.events(["job"], after=seen[0]["id"])
        assert next(again)["topic"] == "connected"
        assert [next(again), next(again)] == seen[1:]


def test_who_has_missed_too_much_is_told_what_there_is(tmp_path: Path) -> None:
    with running(tmp_path / "data") as url, Client(url) as client:
        job = client.wait(client.add_dataset("/x", "one", remote=True)["id"], 30)
        events = client.events(["job"], after=10**9)  # of another database
        assert next(events)["topic"] == "connected"
        reset = next(events)
        assert reset["topic"] == "reset"
        assert reset["data"]["jobs"] == [job]
        assert [one["name"] for one in reset["data"]["artifacts"]] == ["one"]


class Drawn:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str, share: float | None, fresh: bool, below: Sequence[str] = ()) -> None:
        self.lines.append(text)

    def note(self, text: str) -> None:
        self.lines.append(text)

    def until(self, so: Callable[[list[str]], bool]) -> None:
        deadline = time.monotonic() + 60
        while not so(self.lines):
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)


@contextmanager
def following(url: str, job: int) -> Iterator[tuple[Drawn, list[Any]]]:
    """What is drawn of a job, and the job as it ends; the block must see to its end."""
    drawn, ended = Drawn(), list[Any]()
    with Client(url) as client:
        thread = threading.Thread(target=lambda: ended.append(follow(client, job, drawn)), daemon=True)
        thread.start()
        drawn.until(lambda lines: any("work 1/2" in line for line in lines))
        yield drawn, ended
        thread.join(60)


def submitted(url: str) -> int:
    with Client(url) as client:
        return int(client.add_dataset("/x", "slow", remote=True)["id"])


def test_a_job_is_followed_through_the_sudden_death_of_its_studio(tmp_path: Path, port: int) -> None:
    process, url = started(tmp_path / "data", port=port)
    job = submitted(url)
    with following(url, job) as (drawn, ended):
        end(process, signal.SIGKILL)
        drawn.until(lambda lines: "the studio does not answer; trying again" in lines)
        with running(tmp_path / "data", port=port), Client(url) as other:
            drawn.until(lambda lines: "work 1/2" in lines[-1])
            other.stop(job)
            drawn.until(lambda lines: "stopped" in lines[-1])
            last = other.job(job)
    assert ended == [last]
    assert (last["state"], last["attempts"]) == ("stopped", 2)


def test_a_job_that_was_queued_again_meanwhile_is_followed_to_its_real_end(tmp_path: Path, port: int) -> None:
    """What is told again of its earlier end must not be taken for its end."""
    with running(tmp_path / "data", port=port) as url:
        job = submitted(url)
        context = following(url, job)
        drawn, ended = context.__enter__()
    with running(tmp_path / "data") as elsewhere, Client(elsewhere) as other:  # where the reader does not look
        other.stop(job)
        assert other.wait(job, 30)["state"] == "stopped"
        other.retry(job)
    with running(tmp_path / "data", port=port), Client(url) as other:
        drawn.until(lambda lines: "work 1/2" in lines[-1])
        other.stop(job)
        context.__exit__(None, None, None)
        assert ended == [other.job(job)]


def test_metrics_that_were_missed_are_asked_for(tmp_path: Path) -> None:
    """The studio dies between two of them; the next studio does not tell them again."""
    with running(tmp_path / "data", "telling_worker.py") as url, Client(url) as client:
        client.add_model("builtin:pico", "pico")
        client.add_dataset("builtin:python", "python")
        client.tokenize("python", "pico", "t")
        job = client.train("t", "blocks.0.hook_resid_post", "measured")["id"]
        client.wait(job, 60)
        from mistudio.progress import _Tracker

        tracker = _Tracker("")
        tracker.take("job", client.job(job))
        tracker.take("metric", {"step": 0, "sae": "measured", "values": {"fvu": 0.9}})
        tracker.catch_up(client)
        assert [*tracker._measures.parts()] == ["fvu 0.500", "l0 32.0", "dead 10%"]


def test_waiting_goes_on_while_the_studio_is_started_anew(tmp_path: Path, port: int) -> None:
    process, url = started(tmp_path / "data", port=port)
    job, found, asked = submitted(url), list[Any](), threading.Event()

    class Asking(Client):
        def job(self, job: int) -> Any:
            one = super().job(job)
            asked.set()
            return one

    with Asking(url) as client:
        client.wait(job, 30, "running")
        asked.clear()
        waiting = threading.Thread(target=lambda: found.append(client.wait(job, 90)), daemon=True)
        waiting.start()
        assert asked.wait(60)
        end(process, signal.SIGKILL)
        time.sleep(1.5)
        with running(tmp_path / "data", port=port), Client(url) as other:
            other.wait(job, 30, "running")
            other.stop(job)
            waiting.join(60)
    assert found[0]["state"] == "stopped"
