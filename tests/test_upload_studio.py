"""Uploading through a whole studio: by command, with the key that it has stored, through the death of its worker; and
labels there and back."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mistudio import Client
from mistudio.cli import main
from neuronpedia_server import KEY, Fault, Neuronpedia
from studio import running
from trained_saes import WIDTH, change, make_saes

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def there() -> Iterator[Neuronpedia]:
    with Neuronpedia() as there:
        yield there


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data: Path = make_saes(tmp_path_factory.mktemp("upload"))
    change(data / "models/m/model.json", source="org/tiny")
    change(data / "saes/batchtopk/recipe.json", model={"name": "m", "source": "org/tiny"})
    return data


@pytest.fixture(scope="module")
def studio(data: Path, there: Neuronpedia) -> Iterator[str]:
    with running(data, "uploading_worker.py", neuronpedia_url=there.url) as url:
        with Client(url) as client:
            client.set_secret("neuronpedia", KEY)
            for feature in (3, 50):
                client.set_label("batchtopk", feature, f"label of {feature}", "why\nso")
        yield url


@pytest.fixture
def run(studio: str) -> Run:
    return lambda *args: CliRunner(env={"MISTUDIO_HOST": studio}).invoke(main, list(args))


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_upload_whose_worker_is_killed_is_there_whole_and_nothing_twice(
    studio: str, there: Neuronpedia, data: Path
) -> None:
    there.fail = [200] * 5 + [Fault(slow_s=60)]
    with Client(studio) as client:
        job = client.submit({"kind": "upload", "sae": "batchtopk"})["id"]
        until(lambda: len(there.requests) == 6)
        with closing(sqlite3.connect(data / "mistudio.db")) as db:
            (pid,) = db.execute("select pid from attempts where job = ?", (job,)).fetchone()
        os.kill(pid, signal.SIGKILL)
        done = client.wait(job, 120)
        assert done["state"] == "done" and done["attempts"] == 2, done
    result, taken = done["result"], there.features["tiny/1-res-batchtopk"]
    assert result["url"] == f"{there.url}/tiny/1-res-batchtopk" and result["labels"] == 2
    assert result["features"] == len(taken) == sum(there.sizes) and result["features"] + result["dead"] == WIDTH
    assert taken[50]["explanations"] == [{"text": "label of 50", "methodName": "human"}]


def test_the_command_says_where_it_is(run: Run, there: Neuronpedia) -> None:
    shown = run("neuronpedia", "upload", "batchtopk", "--set", "by-command")
    assert shown.exit_code == 0, shown.output
    assert f"{there.url}/tiny/1-by-command" in shown.stdout and "dead, left out" in shown.stdout
    assert run("neuronpedia", "upload", "batchtopk", "--set", "a--b").exit_code == 10


def test_labels_go_there_and_come_back_into_a_copy(run: Run, data: Path, tmp_path: Path) -> None:
    job = data_of(run("sae", "export", "batchtopk", "--format", "neuronpedia", "--json"))
    folder = job["result"]["path"]
    copied = run("neuronpedia", "labels", "topk", folder)
    assert copied.exit_code == 0 and copied.stderr.endswith("/tiny/1-res-batchtopk: 2 imported, 0 known\n"), (
        copied.output
    )
    again = data_of(run("label", "import", "topk", folder, "--json"))
    assert (again["imported"], again["known"], again["skipped"]) == (0, 2, {})
    lines = [
        [json.loads(line) for line in run("label", "export", sae).stdout.splitlines()] for sae in ("batchtopk", "topk")
    ]
    ours, copies = ([(one["feature"], one["text"], one["explanation"]) for one in some] for some in lines)
    assert sorted(copies) == sorted(ours) == [(n, f"label of {n}", "why\nso") for n in (3, 50)]
    assert {(one["provider"], one["template"], one["status"]) for one in lines[1]} == {
        ("neuronpedia", "human", "proposed")
    }


def test_a_label_of_a_person_stays(run: Run, studio: str) -> None:
    with Client(studio) as client:
        client.set_label("topk", 3, "mine")
        folder = data_of(run("sae", "export", "batchtopk", "--format", "neuronpedia", "--json"))["result"]["path"]
        assert run("neuronpedia", "labels", "topk", folder).exit_code == 0
        assert client.label("topk", 3)["text"] == "mine"


def test_saedashboards_files_are_an_export(run: Run) -> None:
    result = data_of(run("sae", "export", "batchtopk", "--format", "saedashboard", "--json"))["result"]
    top = f"tiny_res-batchtopk_blocks.1.hook_resid_post_{WIDTH}"
    assert result["files"] == [f"{top}/batch-0.json", f"{top}/skipped_indexes.json"]
    batch = json.loads((Path(result["path"]) / top / "batch-0.json").read_text("utf-8"))
    assert [one["feature_index"] for one in batch["features"]] == list(range(WIDTH)) and batch["layer"] == 1
    assert "96 features in 1 files" in result["notes"][0]


def contents(data: Path) -> dict[Path, bytes]:
    """Every file but that of the secrets; read anew when one goes meanwhile, for the studio is up."""
    for _ in range(50):
        with suppress(FileNotFoundError):
            files = [path for path in data.rglob("*") if path.is_file() and path.name != "secrets.json"]
            return {path: path.read_bytes() for path in files}
        time.sleep(0.1)
    raise AssertionError("files came and went each of 50 times")


def test_the_key_is_found_nowhere_but_where_it_was_put(studio: str, there: Neuronpedia, data: Path) -> None:
    """Last: after all that the studio was asked here."""
    there.fail = [200, 200, Fault(400, body=json.dumps({"error": f"{KEY} is not liked"}))]
    with Client(studio) as client:
        failed = client.wait(client.submit({"kind": "upload", "sae": "batchtopk", "set": "bad"})["id"], 60)
        assert failed["state"] == "failed" and "*** is not liked" in failed["error"]["message"]
        told = [json.dumps([job, client.log(job["id"])]) for job in client.every_job()]
    assert there.keys == {KEY} and not [one for one in told if KEY in one]
    assert not [path for path, what in contents(data).items() if KEY.encode() in what]
    with closing(sqlite3.connect(data / "mistudio.db")) as db:
        assert not [row for row in db.iterdump() if KEY in row]
