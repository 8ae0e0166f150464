"""What a job leaves in its folder, and what can be made of it when it is cut, damaged or somebody else's."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import put_artifact
from hypothesis import given
from hypothesis import strategies as st

from mistudiod.database import Database
from mistudiod.errors import Invalid, NotFound
from mistudiod.index import NOUNS, Index, is_name, read_info
from mistudiod.jobs import State
from mistudiod.library import Library
from mistudiod.paths import Paths, set_aside
from mistudiod.readings import Metric
from mistudiod.records import Records, begin_run, write_metrics, write_record
from mistudiod.restoring import read_records
from mistudiod.specs import JobRequest, check_name
from mistudiod.store import Jobs
from mistudiod.turn import Turn


class Store:
    """A database and what is built on it."""

    def __init__(self, data: Path) -> None:
        self.paths = Paths(data)
        self.database = Database(self.paths.database, self.paths.backups)
        self.jobs, self.index = Jobs(self.database, Turn(0)), Index(self.database, self.paths)
        self.records = Records(self.database, self.paths)
        self.database.told = lambda id, topic, data: self.records.heard(topic, data)

    async def submit(self, name: str = "n", after: tuple[int, ...] = ()) -> int:
        request = JobRequest.model_validate({"spec": {"kind": "add_dataset", "source": "/s", "name": name}})
        return int((await self.jobs.add(request, after))[0]["id"])

    async def run(self, job: int, state: State = State.DONE, metrics: int = 0, **columns: Any) -> dict[str, Any]:
        """One attempt of a job, from its claim to its end."""
        claimed = await self.jobs.claim("io", [])
        assert claimed is not None and claimed["id"] == job
        begin_run(self.paths.run(job), self.paths.data, claimed, {})
        (self.paths.run(job) / "log.txt").write_text("words\n")
        steps = [Metric(step, "", json.dumps({"loss": 1 / (step + 1)})) for step in range(metrics)]
        await self.jobs.record(job, {"stage": "s", "done": 1, "total": 1, "unit": "", "eta_s": None}, None, steps)
        await self.jobs.end_attempt(job, [state], 0, "ended", None, **columns)
        await self.records.flush()
        return await self.jobs.get(job)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path)
    for noun in NOUNS:
        opened.paths.folder(noun).mkdir()
    await opened.database.open()
    yield opened
    await opened.database.close()


async def lost(store: Store) -> Store:
    """The same folder, its database deleted, started again as a daemon does."""
    await store.database.close()
    for path in store.paths.data.glob("mistudio.db*"):
        path.unlink()
    again = Store(store.paths.data)
    await again.database.open()
    await again.index.rebuild()
    await again.records.rebuild()
    await again.records.flush()
    store.__dict__.update(again.__dict__)  # the fixture closes it
    return store


async def test_after_a_flush_what_was_being_written_is_there(store: Store) -> None:
    job = await store.submit()
    writing = asyncio.create_task(store.records.run())
    await store.run(job)
    while store.records._due:  # taken to be written, and not yet there
        await asyncio.sleep(0)
    await store.records.flush()
    assert (store.paths.run(job) / "job.json").exists()
    writing.cancel()


async def test_a_job_that_has_ended_comes_back_as_it_was(store: Store) -> None:
    first = await store.submit("a")
    ended = [await store.run(first, metrics=3)]
    second = await store.submit("b", after=(first,))
    ended.append(await store.run(second, State.FAILED, error={"code": "invalid", "message": "no", "field": "source"}))
    metrics = await store.jobs.metrics(first, -1, 10)
    assert len(metrics["metrics"]) == 3
    await lost(store)
    assert [await store.jobs.get(one["id"]) for one in ended] == ended
    assert await store.jobs.metrics(first, -1, 10) == metrics
    assert await store.submit("c") == second + 1


async def test_an_artifact_that_does_not_say_which_job_made_it_is_given_that_job_again(store: Store) -> None:
    for _ in range(2):  # the first is removed, and made once more
        job = await store.submit("d")
        await store.run(job)
    put_artifact(store.paths.data, "datasets", "d", "dataset.json")
    await lost(store)
    assert (await store.index.get("dataset", "d"))["job"] == job


async def test_a_restored_job_can_be_retried_as_often_as_one_that_was_never_lost(store: Store) -> None:
    job = await store.submit()
    await store.run(job, State.FAILED, error={"code": "x", "message": "y"})
    await lost(store)
    assert (await store.jobs.retry(job))["state"] == "queued"
    assert (await store.run(job))["attempts"] == 2
    assert await store.jobs.unfinished() == []


async def test_the_end_of_an_attempt_that_queues_the_job_again_leaves_no_record(store: Store) -> None:
    job = await store.submit()
    claimed = await store.jobs.claim("io", [])
    assert claimed is not None
    begin_run(store.paths.run(job), store.paths.data, claimed, {})
    await store.jobs.end_attempt(job, [State.INTERRUPTED, State.QUEUED], -9, "killed", None)
    await store.records.flush()
    assert not (store.paths.run(job) / "job.json").exists()


@pytest.mark.parametrize("checkpoint", [None, 7])
async def test_a_job_that_was_live_comes_back_stopped_and_says_how_to_go_on(
    store: Store, checkpoint: int | None
) -> None:
    needed = await store.submit("needed")
    await store.run(needed)
    job = await store.submit("live", after=(needed,))
    claimed = await store.jobs.claim("io", [])
    assert claimed is not None
    begin_run(store.paths.run(job), store.paths.data, claimed, {})
    if checkpoint:
        (store.paths.run(job) / "checkpoints" / str(checkpoint)).mkdir(parents=True)
    await lost(store)
    found = await store.jobs.get(job)
    assert (found["state"], found["attempts"], found["after"]) == ("stopped", 1, [needed])
    assert {name: found[name] for name in ("created_at", "started_at", "spec", "makes", "lane")} == {
        name: claimed[name] for name in ("created_at", "started_at", "spec", "makes", "lane")
    }
    assert found["error"]["code"] == "restored"
    assert ("last checkpoint" in found["error"]["message"]) == (checkpoint is not None)
    assert (await store.jobs.retry(job))["state"] == "queued"


async def test_a_spec_of_an_older_version_is_enough(store: Store) -> None:
    run = store.paths.run(4)
    run.mkdir(parents=True)
    spec = {"kind": "train", "name": "s", "tokenization": "t", "hook": "h"}
    (run / "spec.json").write_text(json.dumps({"job": 4, "data": "/elsewhere", "spec": spec}))
    await store.records.rebuild()
    found = await store.jobs.get(4)
    assert (found["state"], found["lane"], found["attempts"]) == ("stopped", "gpu", 1)
    assert found["makes"] == {"noun": "sae", "name": "s", "names": ["s"]}


DAMAGED = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"id": 1}', b'"' + b"9" * 10_000, b"9" * 10_000,
    b'{"id": 1, "kind": "add_dataset", "state": "done", "created_at": "then", "spec": {"kind": "bake"}}',
    b'{"id": 1, "kind": "bake", "state": "done", "created_at": "then", "spec": {"kind": "bake"}}',
    b'{"id": 2, "kind": "add_dataset", "state": "done", "created_at": "then", "spec": {"kind": "add_dataset"}}',
    b'{"id": 1, "kind": "add_dataset", "state": "running", "created_at": "then", "spec": {"kind": "add_dataset"}}',
    b'{"id": 1, "kind": "train", "state": "done", "created_at": "then", "spec": {"kind": "train"}}',
    b'{"id": 1, "kind": "add_dataset", "state": "done", "created_at": "then", "spec": {"kind": "add_dataset"},'
    b' "after": [99999999999999999999]}',
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED, ids=range(len(DAMAGED)))
async def test_a_damaged_record_is_told_of_and_its_job_comes_back_from_its_spec(
    store: Store, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    job = await store.submit()
    await store.run(job)
    (store.paths.run(job) / "job.json").write_bytes(damage)
    await lost(store)
    found = await store.jobs.get(job)
    assert (found["state"], found["error"]["code"]) == ("stopped", "restored")
    assert f"{store.paths.run(job) / 'job.json'} is damaged" in caplog.text


@pytest.mark.parametrize("damage", DAMAGED[:9], ids=range(9))
async def test_a_folder_that_says_nothing_is_left_alone_and_its_number_is_not_used_again(
    store: Store, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    run = store.paths.run(41)
    run.mkdir(parents=True)
    (run / "spec.json").write_bytes(damage)
    (store.paths.data / "runs" / "42").mkdir()
    for odd in ("٣", "007", "x", "99999999999", ".partial-preview-1"):
        (store.paths.data / "runs" / odd).mkdir()
    await store.records.rebuild()
    assert await store.jobs.newest(10) == []
    assert "41" in caplog.text and run.is_dir()
    assert await store.submit() == 43


async def test_the_number_of_a_job_whose_artifact_is_left_is_not_used_again(store: Store) -> None:
    put_artifact(store.paths.data, "features", "s/12", "manifest.json", '{"job": 12}')
    for name, job in (("a", '"5"'), ("b", "1e99"), ("c", "-1"), ("d", "[7]"), ("e", "true"), ("f", str(2**40))):
        put_artifact(store.paths.data, "saes", name, "recipe.json", f'{{"job": {job}}}')
    await lost(store)
    assert len(await store.index.all("sae")) == 6
    assert await store.submit() == 13


async def test_metrics_that_are_no_numbers_and_lines_that_are_cut_are_passed_over(store: Store) -> None:
    job = await store.submit()
    await store.run(job, metrics=2)
    path = store.paths.run(job) / "metrics.jsonl"
    wrong = ["-1", "1e9", "99999999999999999999", "null"]
    more = ['{"step": 2, "values": {"loss": NaN}}', *(f'{{"step": {step}, "values": {{}}}}' for step in wrong)]
    more += ['{"values": {}}', "[1]", "5", '{"step": 5, "val']
    path.write_text(path.read_text() + "\n".join(more))
    await lost(store)
    found = (await store.jobs.metrics(job, -1, 10))["metrics"]
    assert [one["step"] for one in found] == [0, 1, 2]
    assert found[2]["values"] == {"loss": None}


async def test_jobs_that_the_database_has_are_never_touched(store: Store) -> None:
    job = await store.submit()
    done = await store.run(job, metrics=2)
    write_record(store.paths.run(job), {**done, "state": "failed", "priority": 9})
    write_metrics(store.paths.run(job), [Metric(9, "", "{}")])
    assert await store.records.rebuild() == 0
    assert await store.jobs.get(job) == done
    assert len((await store.jobs.metrics(job, -1, 10))["metrics"]) == 2


async def test_a_missing_record_is_written_at_the_start(store: Store) -> None:
    """As in a data folder of a version without them, or after a full disk."""
    job = await store.submit()
    done = await store.run(job, metrics=1)
    run = store.paths.run(job)
    for name in ("job.json", "metrics.jsonl"):
        (run / name).unlink()
    await store.records.rebuild()
    await store.records.flush()
    assert json.loads((run / "job.json").read_text()) == done
    assert (run / "metrics.jsonl").read_text().count("\n") == 1


async def test_a_job_that_never_ran_is_kept_as_well(store: Store) -> None:
    job = await store.submit()
    await store.jobs.stop(job)
    await store.records.flush()
    await lost(store)
    assert (await store.jobs.get(job))["state"] == "stopped"


async def test_a_removed_job_does_not_come_back_even_if_its_record_was_just_due(store: Store) -> None:
    job = await store.submit()
    await store.run(job, metrics=1)
    store.records.heard("job", {"id": job, "state": "done"})
    trash = await store.jobs.remove(job, lambda: set_aside(store.paths.run(job)))
    await store.records.flush()
    assert trash is not None and trash.name.startswith(".partial-")
    await lost(store)
    with pytest.raises(NotFound):
        await store.jobs.get(job)
    assert store.paths.sweep() == [trash]


async def test_a_record_that_cannot_be_written_is_told_of_and_harms_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    job = await store.submit()
    await store.jobs.stop(job)
    (store.paths.data / "runs").write_text("no folder")
    await store.records.flush()
    assert f"the record of job {job} cannot be written" in caplog.text
    (store.paths.data / "runs").unlink()
    await store.records.rebuild()
    await store.records.flush()
    assert (store.paths.run(job) / "job.json").exists()


async def test_a_record_whose_writing_was_cut_off_by_the_daemons_end_is_written_before_it_ends(store: Store) -> None:
    jobs = [await store.submit(f"n{number}") for number in range(20)]
    writing = asyncio.create_task(store.records.run())
    for job in jobs:
        await store.jobs.stop(job)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.records.flush()
    assert all((store.paths.run(job) / "job.json").exists() for job in jobs)


def test_a_record_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    write_record(tmp_path / "1", {"id": 1})

    def cut() -> Any:
        yield Metric(0, "", "{}")
        raise OSError(28, "No space left on device")

    write_metrics(tmp_path / "1", [Metric(5, "", "{}")])
    with pytest.raises(OSError, match="No space"):
        write_metrics(tmp_path / "1", cut())
    assert (tmp_path / "1" / "metrics.jsonl").read_text() == '{"step": 5, "sae": null, "values": {}}\n'
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["job.json", "metrics.jsonl"]


def test_the_records_of_known_jobs_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1, 4):
        write_record(tmp_path / str(number), {"id": "damaged"})
    assert read_records(tmp_path, {1, 2, 3}) == ([], 3)
    assert caplog.text == ""


# -- the index of artifacts ------------------------------------------------------------------------------------------


@given(st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9._/-]{1,70}"))
def test_the_index_and_the_specs_agree_on_what_a_name_is(name: str) -> None:
    try:
        valid = bool(check_name(name))
    except ValueError:
        valid = False
    assert is_name("sae", name) == valid
    assert is_name("features", f"{name}/7") == valid


@pytest.mark.parametrize("name", ["../../x", "..", ".", "", "a/b", "/etc", "a\0b", "12", "a\n", "x" * 65, ".hidden"])
async def test_a_name_that_is_none_becomes_no_path(store: Store, name: str) -> None:
    assert read_info(store.paths, "sae", name) is None
    with pytest.raises(Invalid):
        await store.index.add("sae", name, {}, None)


@pytest.mark.parametrize("name", ["s", "s/x", "s/1/2", "../1", "s/..", "s/", "/1", "s/²"])
def test_features_are_a_name_and_a_number(name: str) -> None:
    assert not is_name("features", name)
    assert is_name("features", "s/1")


async def test_what_json_has_no_word_for_is_null_in_lists(store: Store) -> None:
    put_artifact(store.paths.data, "saes", "s", "recipe.json", '{"fvu": NaN, "l0": [Infinity, -Infinity, 1e999, 1.5]}')
    put_artifact(store.paths.data, "saes", "deep", "recipe.json", "[" * 100_000)
    await store.index.rebuild()
    (found,) = await store.index.all("sae")
    assert (found["fvu"], found["l0"]) == (None, [None, None, None, 1.5])


async def test_a_folder_whose_name_cannot_be_used_is_told_of_and_left_out(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    put_artifact(store.paths.data, "saes", "my sae", "recipe.json")
    put_artifact(store.paths.data, "saes", "\udcff", "recipe.json")  # bytes that are no UTF-8
    put_artifact(store.paths.data, "features", "s/last", "manifest.json")
    assert await store.index.rebuild() == 0
    assert "rename the folder" in caplog.text


async def test_a_list_is_read_page_by_page(store: Store) -> None:
    for name in "abcde":
        put_artifact(store.paths.data, "models", name, "model.json")
    await store.index.rebuild()
    first = await store.index.all("model", 2)
    rest = await store.index.all("model", 10, first[-1]["id"])
    assert "".join(one["name"] for one in first + rest) == "abcde"


async def test_the_newest_features_are_those_of_the_highest_number(store: Store) -> None:
    for name in ("s/10", "s/9", "s_/11", "s-x/12", "sx/13"):
        put_artifact(store.paths.data, "features", name, "manifest.json")
    await store.index.rebuild()
    newest = await store.index.newest_features("s")
    assert newest is not None and newest["name"] == "s/10"
    assert await store.index.newest_features("none") is None
    put_artifact(store.paths.data, "saes", "s", "recipe.json")
    put_artifact(store.paths.data, "saes", "t", "recipe.json")
    await store.index.rebuild()
    sae = await store.index.get("sae", "s")
    assert await store.index.with_features("s") == await store.index.with_features(str(sae["id"])) == (sae, newest)
    assert await store.index.with_features("t") == (await store.index.get("sae", "t"), None)


async def test_removing_an_sae_removes_its_features_and_no_others(store: Store) -> None:
    for name in ("a_b", "axb"):  # _ is a wildcard in SQL's like
        put_artifact(store.paths.data, "saes", name, "recipe.json")
        put_artifact(store.paths.data, "features", f"{name}/3", "manifest.json")
    await store.index.rebuild()
    library = Library(store.database, store.paths, store.index)
    await library.remove("a_b")
    assert [one["name"] for one in await store.index.all("features")] == ["axb/3"]
    assert [path.name for path in (store.paths.data / "features").iterdir()] == ["axb"]
    assert [path.name for path in (store.paths.data / "saes").iterdir()] == ["axb"]
    with pytest.raises(NotFound):
        await library.remove("a_b")


async def test_of_a_link_only_the_link_is_removed(store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = put_artifact(tmp_path_factory.mktemp("big"), "datasets", "d", "dataset.json")
    (store.paths.data / "datasets" / "d").symlink_to(elsewhere)
    await store.index.rebuild()
    await store.index.remove("dataset", "d")
    assert list((store.paths.data / "datasets").iterdir()) == []
    assert (elsewhere / "dataset.json").exists()


async def test_a_rebuild_tells_of_what_has_changed_and_of_nothing_else(store: Store) -> None:
    put_artifact(store.paths.data, "saes", "s", "recipe.json")
    await store.index.rebuild()

    def told(db: sqlite3.Connection) -> list[dict[str, Any]]:
        rows = db.execute("select data from events where topic = 'artifact' order by id").fetchall()
        return [json.loads(row["data"]) for row in rows]

    assert [one["name"] for one in await store.database.read(told)] == ["s"]
    await store.index.rebuild()
    assert len(await store.database.read(told)) == 1
    (store.paths.data / "saes" / "s" / "recipe.json").unlink()
    await store.index.rebuild()
    assert (await store.database.read(told))[1]["removed"] is True
    assert await store.index.counts() == dict.fromkeys(NOUNS, 0)
