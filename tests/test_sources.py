"""Whose file? Over real HTTP: the daemon's own user names what it likes, anybody else only what is allowed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Studio, dataset
from run_job import run_job
from test_uploads import House, announced, opened
from text_sources import stored
from tiny_models import tiny_model

from mistudiod.api.keys import DATABASE, JOBS
from mistudiod.errors import Invalid
from mistudiod.jobs import State
from mistudiod.paths import Paths, join
from mistudiod.sources import resolve, unfinished
from mistudiod.specs import AddDataset, AddModel, Train
from mistudiod.uploads import Uploads
from mistudiod.worker.link import Refused

BY_PROXY = {"X-Forwarded-For": "10.0.0.9"}  # what comes through a proxy is not of the daemon's user, and needs a token
KINDS = ("add_dataset", "add_model")


class Machine:
    """A daemon's machine with an allowed folder, one that is not, and the incoming folder."""

    def __init__(self, home: Path, house: House) -> None:
        self.home, self.house, self.data = home, house, house.data
        self.allowed, self.private, self.incoming = home / "allowed", home / "private", house.data / "incoming"
        _, made = house.call("POST", "/api/tokens", json={"name": "other", "scope": "write"})
        self.other = BY_PROXY | {"Authorization": f"Bearer {made['token']}"}

    def submit(self, source: object, kind: str = "add_dataset", other: bool = True, **fields: Any) -> tuple[int, Any]:
        spec = {"kind": kind, "source": str(source), "name": f"ok-{next(self.numbers)}x", **fields}
        return self.house.call("POST", "/api/jobs", json={"spec": spec}, headers=self.other if other else {})

    numbers = iter(range(10_000))

    def refused(self, source: object, kind: str = "add_dataset") -> str:
        """The sentence, without the source in it."""
        status, body = self.submit(source, kind)
        assert status == 400, body
        assert list(body["error"]["fields"]) == ["source"], body
        return str(body["error"]["message"]).replace(repr(str(source)), "SOURCE")

    def taken(self, source: object, kind: str = "add_dataset", other: bool = True) -> str:
        """The source of the job."""
        status, job = self.submit(source, kind, other)
        assert status == 201, job
        return str(job["spec"]["source"])


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    home = tmp_path_factory.mktemp("machine")
    for folder in ("allowed/books", "private"):
        (home / folder).mkdir(parents=True)
    for file in ("allowed/a.txt", "allowed/books/b.txt", "private/secret.txt"):
        (home / file).write_text("text")
    with opened(home / "data", allowed_paths=f"{home}/allowed,{home}/none") as house:
        (home / "data" / "incoming" / "c.txt").write_text("text")
        yield Machine(home, house)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_user_names_any_path_and_it_stays_as_it_is(kind: str, machine: Machine) -> None:
    for source in ("/etc/passwd", f"{machine.allowed}/../private/secret.txt", "~/x.txt", "builtin:pico"):
        assert machine.taken(source, kind, other=False) == source


@pytest.mark.parametrize("kind", KINDS)
def test_anybody_else_names_what_is_allowed(kind: str, machine: Machine) -> None:
    for source in (machine.allowed / "a.txt", machine.allowed / "books", machine.allowed, machine.incoming / "c.txt"):
        assert machine.taken(source, kind) == os.path.realpath(source)
    assert machine.taken("builtin:python", kind) == "builtin:python"
    inside = f"{machine.allowed}/books/../a.txt"
    assert machine.taken(inside, kind) == os.path.realpath(machine.allowed / "a.txt")


@pytest.mark.parametrize("kind", KINDS)
def test_anything_else_is_refused_and_nobody_learns_whether_it_is_there(kind: str, machine: Machine) -> None:
    link = machine.allowed / f"link-{kind}"
    link.symlink_to("/etc/passwd")
    lost = machine.allowed / f"lost-{kind}"
    lost.symlink_to(machine.private / "nothing")
    refused = [
        "/etc/passwd", "/etc/none", "/etc", "/", machine.private / "secret.txt", machine.private / "none",
        f"{machine.allowed}/../private/secret.txt", f"{machine.allowed}/../private/none", link, lost,
        f"{machine.incoming}/../mistudio.db", machine.data / "mistudio.db", machine.data / "none", machine.data,
        f"{machine.allowed}-not/a.txt", "./allowed/a.txt", "../etc/passwd", "~root/x.txt", "~", "a/b/c", "~/x/y",
        f"{machine.allowed}\0/../../etc/passwd", "file:///etc/passwd", "Builtin:pico", machine.home,
        "/proc/self/environ",
    ]  # fmt: skip
    try:
        sentences = {machine.refused(source, kind) for source in refused if "\0" not in str(source)}
        assert len(sentences) == 1, sentences
        assert "SOURCE may not be read from here: upload it" in sentences.pop()
        assert all(machine.submit(source, kind)[0] == 400 for source in refused)
    finally:
        link.unlink()
        lost.unlink()


@pytest.mark.parametrize("source", ["org/name", "allowed/a.txt", "gpt2", "hf://datasets/org/name"])
def test_an_id_of_the_hub_is_anybodys_and_beyond_doubt_no_path(source: str, machine: Machine) -> None:
    of_the_hub = f"hf://datasets/{source.removeprefix('hf://datasets/')}"
    assert machine.taken(source) == of_the_hub
    assert machine.taken(source, other=False) == source, "of its own user the worker finds out which it is"
    assert machine.taken(source, "add_model") == source, "a model's relative path is refused for everybody"


def test_an_id_that_is_also_a_relative_path_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "secret.txt").write_text("text of this machine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for kind, source, name in (
        ("add_dataset", "hf://datasets/here/secret.txt", "here/secret.txt"),
        ("preview_dataset", "hf://datasets/here/secret.txt", "here/secret.txt"),
        ("add_model", "here/secret.txt", "here/secret.txt"),
    ):
        known = {} if kind == "preview_dataset" else {"name": "x"}
        with pytest.raises(Refused, match=f"is offline and the (dataset|model) {name} is not in") as refused:
            run_job(tmp_path / "data", kind, source=source, **known)
        assert refused.value.field == "source"


def test_what_a_stranger_previews_is_held_to_the_same_rule(machine: Machine) -> None:
    for source, status, said in (
        ("/etc/passwd", 400, "may not be read from here: upload it"),
        (f"upload:{'0' * 32}", 400, "there is no upload"),
    ):
        found, body = machine.house.call(
            "POST", "/api/datasets/preview", json={"source": source}, headers=machine.other
        )
        assert (found, list(body["error"]["fields"])) == (status, ["source"])
        assert said in body["error"]["message"]


@pytest.mark.parametrize("where", ["books", "books/deep", "books/through"])
def test_a_folder_with_a_link_out_of_what_is_allowed_is_refused(where: str, machine: Machine) -> None:
    folder = machine.allowed / "linked"
    (folder / "books" / "deep").mkdir(parents=True)
    (folder / "elsewhere").mkdir()
    (folder / "books" / "through").symlink_to(folder / "elsewhere")
    (folder / "books" / "round").symlink_to(folder / "books")
    (folder / "books" / "good.txt").symlink_to(machine.allowed / "a.txt")
    source = folder / "books"
    try:
        assert machine.taken(source) == os.path.realpath(source), "links within what is allowed do no harm"
        for target in ("/etc/passwd", "/etc", machine.private / "none", machine.data / "mistudio.db"):
            (folder / where / "out.txt").symlink_to(target)
            assert "holds a link that leads out" in machine.refused(source)
            (folder / where / "out.txt").unlink()
    finally:
        shutil.rmtree(folder)


def test_an_allowed_folder_that_is_a_link_itself_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    paths, spec = Paths(tmp_path / "data"), AddDataset(source=str(tmp_path / "link" / "a.txt"), name="d")

    async def resolved(allowed: Path) -> str:
        uploads = Uploads(paths.uploads, 1000)
        return (await resolve(spec, False, [allowed], paths, uploads)).source

    for allowed in (tmp_path / "link", tmp_path / "real"):
        assert asyncio.run(resolved(allowed)) == str(tmp_path / "real" / "a.txt")


def test_the_data_folder_is_never_allowed_even_when_all_is(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "data")
    (tmp_path / "data" / "incoming").mkdir(parents=True)

    async def resolved(source: Path) -> str:
        spec = AddModel(source=str(source), name="m")
        return (await resolve(spec, False, [Path("/")], paths, Uploads(paths.uploads, 1000))).source

    assert asyncio.run(resolved(Path("/etc/passwd"))) == os.path.realpath("/etc/passwd")
    for source in (paths.database, paths.data, tmp_path, Path("/")):
        with pytest.raises(Invalid, match="may not be read"):
            asyncio.run(resolved(source))
    assert asyncio.run(resolved(paths.incoming))


def test_a_job_without_a_source_passes(tmp_path: Path) -> None:
    spec, paths = Train(name="s", tokenization="t", hook="h"), Paths(tmp_path)
    assert asyncio.run(resolve(spec, False, [], paths, Uploads(paths.uploads, 1000))) is spec


@pytest.mark.parametrize("other", [True, False])
def test_an_upload_is_a_source_once_it_is_complete(other: bool, machine: Machine) -> None:
    id = machine.house.create(announced("a.txt", b"text"))["id"]
    machine.house.put(id, "a.txt", 0, b"te")
    status, body = machine.submit(f"upload:{id}", other=other)
    assert (status, list(body["error"]["fields"])) == (400, ["source"])
    assert "is not complete: 2 of 4 bytes" in body["error"]["message"]
    machine.house.put(id, "a.txt", 2, b"xt")
    assert machine.taken(f"upload:{id}", other=other) == f"upload:{id}"
    for source in ("upload:", "upload:../x", f"upload:{'0' * 32}", f"upload:{id}/../..", "upload:/etc/passwd"):
        status, body = machine.submit(source, other=other)
        assert (status, "there is no upload" in body["error"]["message"]) == (400, True)


def test_an_upload_goes_when_its_job_is_done_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistudiod.sources.SWEEP_EVERY_S", 0.05)
    with opened(tmp_path / "data") as house:
        machine = Machine(tmp_path, house)
        ids, jobs = {}, {}
        for name in ("fail", "slow", "ok"):
            id = ids[name] = house.create(announced("a.txt", b"text"))["id"]
            house.put(id, "a.txt", 0, b"text")
            status, job = machine.submit(f"upload:{id}", name=name)
            assert status == 201
            jobs[name] = job["id"]
        house.until(lambda: house.call("GET", f"/api/uploads/{ids['ok']}")[0] == 404)
        # The jobs run side by side, and any may be the first to end.
        house.until(lambda: house.call("GET", f"/api/jobs/{jobs['fail']}")[1]["state"] == "failed")
        time.sleep(0.3)
        assert house.show(ids["fail"])["complete"], "the job may be retried"
        status, body = house.call("DELETE", f"/api/uploads/{ids['slow']}")
        assert (status, "an unfinished job reads" in body["error"]["message"]) == (409, True)
        assert house.call("DELETE", f"/api/uploads/{ids['fail']}")[0] == 204


def test_an_upload_goes_with_its_job_when_that_is_removed_as_soon_as_it_is_done(machine: Machine) -> None:
    house = machine.house
    id = house.create(announced("a.txt", b"text"))["id"]
    house.put(id, "a.txt", 0, b"text")
    _, job = machine.submit(f"upload:{id}", name="ok")
    house.until(lambda: house.call("GET", f"/api/jobs/{job['id']}")[1]["state"] == "done")
    assert house.call("DELETE", f"/api/jobs/{job['id']}")[0] == 204
    assert house.call("GET", f"/api/uploads/{id}")[0] == 404


async def test_a_job_that_moves_on_while_it_is_looked_for_is_among_the_unfinished(studio: Studio) -> None:
    """However it goes from state to state meanwhile, its upload is not taken for one that nobody reads any more."""
    first = await studio.submit(dataset("slow"))
    waits = await studio.submit(dataset("ok") | {"source": "/other"}, after=[first["id"]])
    database, jobs = studio.app[DATABASE], studio.app[JOBS]
    in_state = jobs.in_state

    async def elsewhere(*states: State) -> list[int]:
        other = next((one for one in (State.QUEUED, State.PAUSED) if one not in states), State.QUEUED)
        query = "update jobs set state = ? where id = ?"
        await database.write(lambda db: db.execute(query, (other.value, waits["id"])))
        return list(await in_state(*states))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "in_state", elsewhere)
        assert await unfinished(jobs) == {"/text", "/other"}


def put_upload(data: Path, files: dict[str, bytes]) -> str:
    """An upload as the daemon leaves it."""

    async def upload() -> str:
        uploads = Uploads(data / "uploads", 1 << 30)
        data.mkdir(exist_ok=True)
        made = await uploads.create("x", [announced(path, content) for path, content in files.items()])
        for path, content in files.items():
            await uploads.receive(made["id"], path, 0, _once(content))
        return f"upload:{made['id']}"

    async def _once(content: bytes) -> Any:
        if content:
            yield content

    return asyncio.run(upload())


def test_the_worker_reads_text_from_an_upload_of_one_file_and_of_a_folder(tmp_path: Path) -> None:
    one = put_upload(tmp_path / "one", {"a.txt": b"first"})
    found = run_job(tmp_path / "one", "add_dataset", source=one, name="d")
    assert found["source"] == one
    assert stored(tmp_path / "one") == [{"text": "first", "name": "a.txt"}]
    many = put_upload(tmp_path / "many", {"a.txt": b"first", "b/c.txt": b"second"})
    run_job(tmp_path / "many", "add_dataset", source=many, name="d")
    assert [row["name"] for row in stored(tmp_path / "many")] == ["a.txt", "b/c.txt"]


def test_an_uploaded_model_becomes_the_studios_own_and_outlives_the_upload(tmp_path: Path) -> None:
    model, data = tiny_model("gpt2", tmp_path / "model"), tmp_path / "data"
    files = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    source = put_upload(data, files)
    found = run_job(data, "add_model", source=source, name="m")
    assert found["path"] == str(data / "models" / "m" / "files")
    kept = Path(found["path"])
    upload = data / "uploads" / source.removeprefix("upload:")
    weights = "model.safetensors"
    assert (kept / weights).stat().st_ino == (upload / "files" / weights).stat().st_ino, "not copied"
    again = run_job(data, "add_model", source=source, name="m")
    assert again == found, "a job that was cut off after its work says the same"
    shutil.rmtree(upload)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == files
    assert json.loads((kept.parent / "model.json").read_text())["source"] == source


@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_that_is_gone_is_one_sentence(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is not there any more: send it again") as refused:
        run_job(tmp_path, kind, source=f"upload:{'0' * 32}", name="x")
    assert refused.value.field == "source"


@pytest.mark.parametrize("parts", [("a",), ("a/b",), ("a", "b"), ("ü",), ("...",), ("a..b",), ("-",), ("x" * 255,)])
def test_names_are_joined_below_a_folder(parts: tuple[str, ...], tmp_path: Path) -> None:
    assert join(tmp_path, *parts) == tmp_path.joinpath(*parts)


@pytest.mark.parametrize(
    "parts",
    [(), ("",), ("a", ""), ("/a",), ("a", "/b"), ("..",), ("a/../b",), ("a", ".."), (".",), ("a//b",), ("a\0",),
     ("a\\b",), ("x" * 256,), ("ä" * 128,), ("\ud800",), ("a/" * 600 + "b",)],
)  # fmt: skip
def test_names_that_could_lead_elsewhere_are_not_joined(parts: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError) as refused:
        join(tmp_path, *parts)
    assert len(str(refused.value)) < 250


def test_a_name_is_not_joined_through_a_link_that_leads_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "in").symlink_to(root / "inner")
    (root / "out").symlink_to(tmp_path)
    (root / "file").symlink_to("/etc/passwd")
    assert join(root, "in/a.txt") == root / "in" / "a.txt"
    for path in ("out", "out/a.txt", "file", "in/../out"):
        with pytest.raises(ValueError):
            join(root, path)


@pytest.mark.parametrize("source", ["org/name", "org/name:layer_3/width_16k"])
def test_a_repository_of_saes_is_anybodys_with_what_is_named_in_it(source: str, machine: Machine) -> None:
    assert machine.taken(source, "add_sae") == source


def test_the_source_of_an_sae_is_held_to_the_same_rule_with_what_is_named_in_it(machine: Machine) -> None:
    books = machine.allowed / "books"
    assert machine.taken(f"{books}:layer_3", "add_sae") == f"{os.path.realpath(books)}:layer_3"
    assert machine.taken(machine.allowed / "a.txt", "add_sae") == os.path.realpath(machine.allowed / "a.txt")
    (machine.private / "odd:name").write_text("text")
    refused = [
        machine.private, machine.private / "none", f"{machine.private}:x", f"{machine.private}/odd:name",
        f"{machine.private}/odd:none", f"{machine.allowed}/../private:x", "a/b/c:d", "/etc:passwd",
    ]  # fmt: skip
    assert len({machine.refused(source, "add_sae") for source in refused}) == 1


def test_a_link_beside_the_file_of_an_sae_does_not_lead_out(machine: Machine) -> None:
    folder = machine.allowed / "one"
    folder.mkdir()
    (folder / "x.npz").write_text("weights")
    try:
        assert machine.taken(folder / "x.npz", "add_sae")
        (folder / "config.json").symlink_to(machine.private / "secret.txt")
        assert "lies a link that leads out of what may be read" in machine.refused(folder / "x.npz", "add_sae")
    finally:
        shutil.rmtree(folder)


def test_an_upload_of_saes_is_a_source_with_what_is_named_in_it(machine: Machine) -> None:
    id = machine.house.create(announced("a.npz", b"text"))["id"]
    assert "is not complete" in machine.refused(f"upload:{id}:layer_3", "add_sae")
    machine.house.put(id, "a.npz", 0, b"text")
    assert machine.taken(f"upload:{id}:layer_3", "add_sae") == f"upload:{id}:layer_3"
    assert "there is no upload" in machine.refused(f"upload:{'0' * 32}:layer_3", "add_sae")


def test_what_a_stranger_previews_of_saes_is_held_to_the_same_rule(machine: Machine) -> None:
    body = {"source": str(machine.private)}
    found, body = machine.house.call("POST", "/api/saes/preview", json=body, headers=machine.other)
    assert found == 400 and "may not be read from here: upload it" in body["error"]["message"]
