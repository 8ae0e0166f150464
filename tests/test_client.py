"""The Python client against a real daemon, and its parts that need none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistudio import Client, names
from mistudio.address import base_url, understand_each_other
from mistudio.errors import ApiError, Unreachable
from mistudio.stream import Records, listen
from studio import running

from mistudiod.specs import AddDataset, check_name


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("studio") / "data", "telling_worker.py") as url:
        yield url


@pytest.fixture
def client(studio: str) -> Iterator[Client]:
    with Client(studio) as client:
        yield client


def test_a_job_is_submitted_awaited_and_its_dataset_is_there(client: Client) -> None:
    job = client.add_dataset("builtin:python")
    assert job["state"] in ("queued", "running")
    assert client.wait(job["id"], timeout=60)["state"] == "done"
    assert client.artifact("dataset", "python")["rows"] == 1234
    assert [one["name"] for one in client.artifacts("dataset")["datasets"]] == ["python"]
    assert client.log(job["id"]).startswith("fake worker, attempt 1")
    client.remove("dataset", "python")
    client.remove_job(job["id"])
    assert job["id"] not in [one["id"] for one in client.every_job()]


def test_a_spec_may_be_the_pydantic_model(client: Client) -> None:
    job = client.submit(AddDataset(source="/x", name="modelled"), priority=3)
    assert job["priority"] == 3
    assert client.wait(job["id"], 60)["result"]["source"] == "/x"


def test_a_refusal_carries_status_code_sentence_and_fields(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        client.train("nothing", "blocks.0.hook_resid_post", name="s", width=0)
    assert (refused.value.status, refused.value.code) == (400, "invalid")
    assert "width" in refused.value.fields
    assert "width" in str(refused.value)


def test_waiting_ends_with_its_time(client: Client) -> None:
    job = client.add_dataset("/x", name="slow")
    with pytest.raises(TimeoutError, match=f"job {job['id']} is still"):
        client.wait(job["id"], timeout=0.2)
    client.stop(job["id"])
    assert client.wait(job["id"], 60)["state"] == "stopped"


def test_events_tell_of_a_job_from_its_start_to_its_end(client: Client) -> None:
    events = client.events(["job"])
    assert next(events)["topic"] == "connected"
    job = client.add_dataset("/x", name="heard")
    states = [event["data"]["state"] for event in itertools.takewhile(lambda e: e["data"]["state"] != "done", events)]
    assert states == ["queued", "running"]
    assert client.job(job["id"])["state"] == "done"


def test_metrics_come_in_pages(client: Client) -> None:
    job = client.wait(client.add_dataset("/x", name="flood")["id"], 100)
    first = client.metrics(job["id"], limit=10)
    assert [one["step"] for one in first["metrics"]] == list(range(10))
    assert client.metrics(job["id"], first["next"], 1)["metrics"][0]["step"] == 10


def test_a_name_with_odd_characters_stays_one_part_of_the_path(client: Client) -> None:
    with pytest.raises(ApiError) as missing:
        client.artifact("sae", "a/../../b?c")
    assert missing.value.status == 404


def test_events_go_on_after_the_studio_was_started_anew(tmp_path: Path) -> None:
    with running(tmp_path / "data") as url:
        client = Client(url)
        events = client.events(["job"])
        assert next(events)["topic"] == "connected"
    assert next(events)["topic"] == "lost"
    with running(tmp_path / "data", port=int(url.rpartition(":")[2])):
        assert "connected" in (event["topic"] for event in events)
    events.close()
    client.close()


def test_no_studio_is_one_sentence() -> None:
    with pytest.raises(
        Unreachable, match=r"no studio answers at http://127.0.0.1:9; start it with ./start-mistudio.sh"
    ):
        Client("127.0.0.1:9").status()


@pytest.mark.parametrize(
    ("host", "environ", "url"),
    [
        (None, {}, "http://127.0.0.1:6478"),
        (None, {"MISTUDIO_PORT": "7000"}, "http://127.0.0.1:7000"),
        (None, {"MISTUDIO_HOST": "jetson", "MISTUDIO_PORT": "7000"}, "http://jetson:6478"),
        ("10.0.0.7", {"MISTUDIO_HOST": "jetson"}, "http://10.0.0.7:6478"),
        ("jetson:80", {}, "http://jetson:80"),
        ("https://studio.example/a/", {}, "https://studio.example/a"),
        ("::1", {}, "http://[::1]:6478"),
        ("[::1]:7000", {}, "http://[::1]:7000"),
        ("[::1]", {}, "http://[::1]:6478"),
    ],
)
def test_the_studio_is_where_the_argument_else_the_environment_says(
    host: str | None, environ: dict[str, str], url: str
) -> None:
    assert base_url(host, environ) == url


@pytest.mark.parametrize("host", ["ftp://x", "http://", "a b", "x:port", "http://[::1", "x:99999"])
def test_what_cannot_be_a_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        base_url(host, {})


def test_versions_differ_when_their_first_number_that_counts_does() -> None:
    assert understand_each_other("0.1.0", "0.1.9")
    assert not understand_each_other("0.1.0", "0.2.0")
    assert understand_each_other("1.2.0", "1.9.0")
    assert not understand_each_other("1.0.0", "2.0.0")
    assert not understand_each_other("0.1.0", "1.1.0")


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


def read(chunks: list[bytes]) -> list[dict[str, object]]:
    records = Records()
    return [event for chunk in chunks for event in records.feed(chunk)]


def test_the_first_connection_must_succeed() -> None:
    @contextmanager
    def connect() -> Iterator[Iterator[bytes]]:
        raise Unreachable("nobody")
        yield iter(())

    with pytest.raises(Unreachable, match="nobody"):
        next(listen(connect))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("builtin:python", "python"),
        ("/books/My Diary (1).txt", "My-Diary-1"),
        ("/data/books.v1/", "books.v1"),
        ("/data/2024", "dataset-2024"),
        ("../..", "dataset"),
        ("Salesforce/wikitext", "wikitext"),
    ],
)
def test_a_name_is_made_from_the_source(source: str, name: str) -> None:
    assert names.from_source(source, "dataset") == name


@settings(deadline=None)
@given(st.text(max_size=100), st.text(max_size=100))
def test_every_made_name_is_one_that_specs_take(one: str, other: str) -> None:
    check_name(names.from_source(one, "dataset"))
    check_name(names.of_tokenization(one, other))
    check_name(names.of_sae(one, other))
