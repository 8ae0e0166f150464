"""Datasets of the Hub, with the real clients and a Hub of our own: what is fetched and said, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import Hub
from run_job import folders
from text_sources import lines, stored, table

_LOOP = """
import json, sys
from pathlib import Path
from mistudiod.paths import Paths
from mistudiod.worker import add_dataset, preview_dataset
from mistudiod.worker.link import Link, Refused
from mistudiod.specs import KINDS, PREVIEWS
out, sys.stderr = sys.stderr, open("/dev/null", "w")
class Told(Link):
    def _send(self, event):
        said.append(event.model_dump(mode="json"))
for line in sys.stdin:
    order, said = json.loads(line), []
    spec = {**KINDS, **PREVIEWS}[order["kind"]].model_validate(order["fields"])
    link = Told(Path(order["data"]), Paths(Path(order["data"])), None, order["secrets"])
    try:
        {"add_dataset": add_dataset, "preview_dataset": preview_dataset}[order["kind"]].run(spec, link)
        answer = {"said": said}
    except Refused as refused:
        answer = {"refused": str(refused), "field": refused.field, "said": said}
    print(json.dumps(answer), file=out, flush=True)
"""


class Worker:
    """A process that does one job after the other: the libraries, which take seconds to import, are imported once."""

    def __init__(self, hub: Hub, home: Path, **variables: str) -> None:
        self.home = home
        environ = {**os.environ, **hub.environ(home / "hf"), **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LOOP], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, text=True
        )

    def run(self, kind: str, data: Path, token: str | None, **fields: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stderr
        data.mkdir(exist_ok=True)
        secrets = {"hf": token} if token else {}
        order = {"kind": kind, "data": str(data), "secrets": secrets, "fields": fields}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stderr.readline())
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class Studio:
    """Adds datasets of the Hub under the name "d"."""

    def __init__(self, hub: Hub, worker: Worker, data: Path) -> None:
        self.hub, self.worker, self.data = hub, worker, data

    def told(self, source: str, token: str | None = None, **fields: Any) -> dict[str, Any]:
        return self.worker.run("add_dataset", self.data, token, source=source, name="d", **fields)

    def add(self, source: str, token: str | None = None, **fields: Any) -> dict[str, Any]:
        answer = self.told(source, token, **fields)
        assert "refused" not in answer, answer
        result: dict[str, Any] = answer["said"][-1]["result"]
        assert json.loads((self.data / "datasets/d/dataset.json").read_text()) == result
        return result

    def preview(self, source: str, token: str | None = None, **fields: Any) -> dict[str, Any]:
        answer = self.worker.run("preview_dataset", self.data, token, source=source, **fields)
        assert "refused" not in answer, answer
        result: dict[str, Any] = answer["said"][-1]["result"]
        return result

    def refusal(self, source: str, field: str = "source", token: str | None = None, **fields: Any) -> str:
        """The sentence, after a look that nothing was left behind; a preview says the same."""
        answer = self.told(source, token, **fields)
        assert answer.get("field") == field, answer
        assert folders(self.data, "datasets") == []
        sentence = str(answer["refused"])
        assert "\n" not in sentence and 15 < len(sentence) < 500
        return sentence

    def texts(self) -> list[str]:
        return [row["text"] for row in stored(self.data)]


@pytest.fixture(scope="module")
def served() -> Iterator[Hub]:
    with Hub() as served:
        yield served


@pytest.fixture(scope="module")
def worker(served: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(served, tmp_path_factory.mktemp("home"))
    yield worker
    worker.end()


@pytest.fixture
def studio(served: Hub, worker: Worker, tmp_path: Path) -> Studio:
    served.forget()
    return Studio(served, worker, tmp_path / "data")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    return folder


def card(repo: Path, **says: Any) -> None:
    (repo / "README.md").write_text(f"---\n{json.dumps(says)}\n---\n# a dataset\n")


def random_texts(count: int, width: int = 40) -> pa.Array:
    """Texts of ``width`` letters, which do not compress."""
    letters = np.random.default_rng(0).integers(97, 123, count * width, dtype=np.uint8)
    offsets = np.arange(count + 1, dtype=np.int32) * width
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(letters)])


# What is fetched


@pytest.mark.parametrize("layout", ["50 files with groups of 1,000", "one file with groups of 1,048,576"])
def test_of_five_million_rows_ten_thousand_fetch_less_than_a_hundredth(studio: Studio, repo: Path, layout: str) -> None:
    if layout.startswith("50"):
        pq.write_table(
            pa.table({"text": random_texts(100_000), "id": range(100_000)}), repo / "part-00.parquet", 1000,
        )  # fmt: skip
        for i in range(1, 50):
            os.link(repo / "part-00.parquet", repo / f"part-{i:02}.parquet")
    else:
        pq.write_table(pa.table({"text": random_texts(5_000_000)}), repo / "all.parquet")
    total = sum(path.stat().st_size for path in repo.iterdir())
    studio.hub.add_dataset("org/large", repo)
    found = studio.add("org/large", rows=10_000)
    fetched = studio.hub.bytes_served("org/large")
    print(f"{layout}: {fetched:,} of {total:,} bytes, {fetched / total:.2%}")
    assert (found["rows"], found["is_cut"]) == (10_000, True)
    assert studio.texts() == random_texts(10_000).to_pylist()
    assert fetched < total / 100


def test_of_a_packed_file_only_the_beginning_is_fetched(studio: Studio, repo: Path) -> None:
    with pa.CompressedOutputStream(repo / "00.jsonl.zst", "zstd") as packed:
        for text in random_texts(10_000, 1000).to_pylist():
            packed.write(json.dumps({"text": text, "meta": {"set": "a"}}).encode() + b"\n")
    total = (repo / "00.jsonl.zst").stat().st_size
    studio.hub.add_dataset("org/pile", repo)
    found = studio.add("org/pile", bytes=100_000)
    assert (found["rows"], found["bytes"], found["text_column"], found["is_cut"]) == (100, 100_000, "text", True)
    assert studio.hub.bytes_served("org/pile") < min(total / 10, 500_000)


def test_all_rows_are_fetched_once_with_progress_in_bytes(studio: Studio, repo: Path) -> None:
    for i in range(3):
        pq.write_table(pa.table({"text": random_texts(20_000), "id": range(20_000)}), repo / f"{i}.parquet", 1000)
    total = sum(path.stat().st_size for path in repo.iterdir())
    studio.hub.add_dataset("org/whole", repo)
    answer = studio.told("org/whole")
    assert answer["said"][-1]["result"]["rows"] == 60_000
    assert studio.texts() == random_texts(20_000).to_pylist() * 3
    assert studio.hub.bytes_served("org/whole") < 1.2 * total
    progress = [event for event in answer["said"] if event["event"] == "progress"]
    assert (progress[-1]["total"], progress[-1]["unit"]) == (total, "bytes")
    assert progress[-1]["done"] == pytest.approx(total)


def test_a_seed_takes_the_rows_from_other_places(studio: Studio, repo: Path) -> None:
    for i in range(5):
        table(repo / f"{i}.parquet", text=[f"{i} {n}" for n in range(2000)])
    studio.hub.add_dataset("org/mixed", repo)
    studio.add("org/mixed", rows=100, shuffle_seed=3)
    assert len(studio.texts()) == 100 and studio.texts() != [f"0 {n}" for n in range(100)]


# What is said of it


def test_where_a_dataset_comes_from_is_recorded(studio: Studio, repo: Path) -> None:
    card(repo, license="cc-by-4.0", configs=[{"config_name": "small", "data_files": "s/*.jsonl"},
         {"config_name": "large", "data_files": [{"split": "train", "path": "l/a.jsonl"},
                                                 {"split": "test", "path": "l/b.jsonl"}]}])  # fmt: skip
    for name in ("s/a", "l/a", "l/b"):
        (repo / name).parent.mkdir(exist_ok=True)
        lines(repo / f"{name}.jsonl", {"text": f"text of {name}", "n": 1})
    sha = studio.hub.add_dataset("org/parts", repo)
    found = studio.add("https://huggingface.co/datasets/org/parts", config="large", split="test")
    assert studio.texts() == ["text of l/b"]
    known = {"revision": sha, "licence": "cc-by-4.0", "config": "large", "split": "test", "text_column": "text"}
    assert known.items() <= found.items()
    assert found["asked"] == {
        "config": "large", "split": "test", "text_column": None, "rows": None, "tokens": None, "bytes": None,
        "shuffle_seed": None,
    }  # fmt: skip


def test_the_usual_split_is_train(studio: Studio, repo: Path) -> None:
    lines(repo / "train.jsonl", {"text": "trained on"})
    lines(repo / "test.jsonl", {"text": "held back"})
    studio.hub.add_dataset("org/splits", repo)
    assert studio.add("hf://datasets/org/splits")["split"] == "train"
    assert studio.texts() == ["trained on"]


def test_a_preview_shows_a_dataset_before_anything_is_stored(studio: Studio, repo: Path) -> None:
    card(repo, license="mit")
    pq.write_table(pa.table({"title": ["t"] * 50_000, "content": random_texts(50_000), "n": range(50_000)}),
                   repo / "train-0.parquet", 1000)  # fmt: skip
    os.link(repo / "train-0.parquet", repo / "train-1.parquet")
    table(repo / "test.parquet", title=["t"], content=["x"], n=[1])
    sha = studio.hub.add_dataset("org/shown", repo)
    found = studio.preview("org/shown", rows=2)
    size = (repo / "train-0.parquet").stat().st_size
    assert found["rows"] == [
        {"title": "t", "content": text, "n": n} for n, text in enumerate(random_texts(2).to_pylist())
    ]
    assert {
        "source": "org/shown", "revision": sha, "licence": "mit", "config": "default", "configs": ["default"],
        "split": "train", "splits": ["train", "test"], "files": 2, "bytes": 2 * size, "documents": 100_000,
        "text_columns": ["title", "content"], "text_column": "content",
    }.items() <= found.items()  # fmt: skip
    assert found["columns"][2] == {"name": "n", "type": "int64"}
    assert studio.hub.bytes_served("org/shown") < size / 3
    assert folders(studio.data, "datasets") == []


def test_a_preview_of_several_configurations_lists_them(studio: Studio, repo: Path) -> None:
    card(repo, configs=[{"config_name": name, "data_files": f"{name}.jsonl"} for name in ("en", "de")])
    for name in ("en", "de"):
        lines(repo / f"{name}.jsonl", {"text": name})
    studio.hub.add_dataset("org/tongues", repo)
    found = studio.preview("org/tongues")
    assert (found["configs"], found["config"], found["rows"]) == (["en", "de"], None, [])
    assert studio.preview("org/tongues", config="de")["rows"] == [{"text": "de"}]
    sentence = studio.refusal("org/tongues", "config")
    assert sentence == "org/tongues has several configurations: say which of 'en', 'de'"
    sentence = studio.refusal("org/tongues", "config", config="fr")
    assert sentence == "org/tongues has no configuration 'fr'; there are: 'en', 'de'"


# What goes wrong


def test_a_wrong_split_is_refused_with_those_there_are(studio: Studio, repo: Path) -> None:
    lines(repo / "test.jsonl", {"text": "x"})
    lines(repo / "validation.jsonl", {"text": "x"})
    studio.hub.add_dataset("org/two", repo)
    sentence = studio.refusal("org/two", "split", split="train")
    assert sentence == "org/two has no split 'train'; there are: 'validation', 'test'"
    assert studio.refusal("org/two", "split") == "org/two has several splits: say which of 'validation', 'test'"
    assert studio.preview("org/two")["split"] == "validation"


def test_a_dataset_without_a_column_of_text_is_refused_with_its_columns(studio: Studio, repo: Path) -> None:
    table(repo / "a.parquet", id=[1], label=[0])
    studio.hub.add_dataset("org/numbers", repo)
    sentence = studio.refusal("org/numbers", "text_column")
    assert sentence == "org/numbers/a.parquet has no column of text; there are: 'id' (int64), 'label' (int64)"
    assert studio.preview("org/numbers")["text_columns"] == []
    sentence = studio.refusal("org/numbers", "text_column", text_column="text")
    assert sentence == "org/numbers/a.parquet has no column 'text'; there are: 'id', 'label'"


def test_a_gated_dataset_is_refused_with_the_page_where_to_ask(studio: Studio, repo: Path) -> None:
    lines(repo / "a.jsonl", {"text": "for a few"})
    studio.hub.add_dataset("org/gated", repo, gated=True)
    studio.hub.allow("hf_outsider")
    studio.hub.allow("hf_insider", "org/gated")
    page = f"{studio.hub.url}/datasets/org/gated"
    assert f"ask for access at {page}" in studio.refusal("org/gated")
    assert f"ask for it at {page}" in studio.refusal("org/gated", token="hf_outsider")
    assert studio.add("org/gated", token="hf_insider")["rows"] == 1


def test_an_unknown_or_private_dataset_is_refused(studio: Studio, repo: Path) -> None:
    lines(repo / "a.jsonl", {"text": "secret"})
    studio.hub.add_dataset("org/private", repo, private=True)
    studio.hub.allow("hf_owner", "org/private")
    assert studio.refusal("org/none") == (
        f"there is no public dataset org/none on the Hub: check its spelling, {studio.hub.url}/datasets/org/none would "
        "be its page; if it is private, store a token that may read it with mistudio secret set hf; a file or folder "
        "of the studio's machine is named by its absolute path"
    )
    assert "that the stored token may read" in studio.refusal("org/none", token="hf_owner")
    assert "if it is private, store a token" in studio.refusal("org/private")
    assert studio.add("org/private", token="hf_owner")["rows"] == 1


def test_configurations_of_a_private_dataset_are_listed_for_its_owner(studio: Studio, repo: Path) -> None:
    card(repo, configs=[{"config_name": name, "data_files": f"{name}.jsonl"} for name in ("en", "de")])
    for name in ("en", "de"):
        lines(repo / f"{name}.jsonl", {"text": name})
    studio.hub.add_dataset("org/own", repo, private=True)
    studio.hub.allow("hf_owner", "org/own")
    assert "say which of 'en', 'de'" in studio.refusal("org/own", "config", token="hf_owner")
    assert studio.add("org/own", token="hf_owner", config="de")["rows"] == 1


def test_code_of_a_dataset_is_never_run(studio: Studio, repo: Path) -> None:
    mark = repo.parent / "was run"
    (repo / "scripted.py").write_text(f"open({str(mark)!r}, 'w')\n")
    lines(repo / "a.jsonl", {"text": "x"})
    studio.hub.add_dataset("org/scripted", repo)
    assert "code of its own (scripted.py), which miStudio never runs" in studio.refusal("org/scripted")
    (repo / "scripted.py").rename(repo / "other.py")
    studio.hub.add_dataset("org/scripted", repo)
    assert studio.add("org/scripted")["rows"] == 1
    assert not mark.exists()


@pytest.mark.parametrize(("name", "what"), [("README.md", "org/odd"), ("a.png", "org/odd"), ("a.tar", "org/odd")])
def test_a_dataset_without_texts_is_refused(studio: Studio, repo: Path, name: str, what: str) -> None:
    (repo / name).write_bytes(b"x")
    studio.hub.add_dataset("org/odd", repo)
    assert studio.refusal("org/odd").startswith(what)


def test_an_empty_and_a_damaged_dataset_are_refused(studio: Studio, repo: Path) -> None:
    (repo / "a.jsonl").write_text("\n")
    studio.hub.add_dataset("org/bad", repo)
    assert "org/bad has no text" in studio.refusal("org/bad")
    (repo / "a.jsonl").write_bytes(bytes(range(256)))
    studio.hub.add_dataset("org/bad", repo)
    assert "org/bad/a.jsonl, line 1 is not JSON" in studio.refusal("org/bad")
    (repo / "a.jsonl").rename(repo / "a.parquet")
    studio.hub.add_dataset("org/bad", repo)
    assert "org/bad/a.parquet is no undamaged parquet file" in studio.refusal("org/bad")


def test_a_cut_connection_and_a_rate_limit_are_survived(studio: Studio, repo: Path) -> None:
    texts = random_texts(100_000)
    pq.write_table(pa.table({"text": texts}), repo / "a.parquet")
    total = (repo / "a.parquet").stat().st_size
    studio.hub.add_dataset("org/far", repo)
    studio.hub.cut_after("a.parquet", 200_000, times=3)
    studio.hub.refuse(path=".*a.parquet")
    assert studio.add("org/far")["rows"] == 100_000
    assert studio.texts() == texts.to_pylist()
    assert studio.hub.bytes_served("org/far") < 1.2 * total


def test_a_stop_is_answered_at_once_and_leaves_nothing(
    studio: Studio, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"text": random_texts(100_000)}), repo / "a.parquet")
    studio.hub.add_dataset("org/slow", repo)
    for name, value in studio.hub.environ(studio.worker.home / "hf").items():
        monkeypatch.setenv(name, value)
    studio.hub.bytes_per_s = 50_000.0
    run = studio.data / "runs/1"
    run.mkdir(parents=True)
    spec = {"kind": "add_dataset", "source": "org/slow", "name": "d"}
    (run / "spec.json").write_text(json.dumps({"job": 1, "data": str(studio.data), "spec": spec}))
    with subprocess.Popen(
        [sys.executable, "-m", "mistudiod.worker", str(run)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as worker:
        until(lambda: studio.hub.bytes_served("org/slow") > 0, worker)
        assert worker.stdin
        worker.stdin.write(b"stop\n")
        worker.stdin.flush()
        began = time.monotonic()
        assert worker.wait(60) == 76
        assert time.monotonic() - began < 20, "all of it takes over a minute"
    assert folders(studio.data, "datasets") == []
    assert folders(studio.data, "runs/1") == ["spec.json"]


def until(happened: Any, worker: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        if happened():
            return
        assert worker.poll() is None
        time.sleep(0.01)
    raise AssertionError("it took too long")


def test_offline_is_said_at_once(served: Hub, repo: Path, tmp_path: Path) -> None:
    lines(repo / "a.jsonl", {"text": "x"})
    served.add_dataset("org/there", repo)
    offline = Worker(served, tmp_path, HF_HUB_OFFLINE="1")
    try:
        assert "miStudio is offline" in Studio(served, offline, tmp_path / "data").refusal("org/there")
    finally:
        offline.end()
