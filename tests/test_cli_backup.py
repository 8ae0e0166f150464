"""``mistudio backup``: one file where one wants it, or one sentence and nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import put_artifact
from kept_saes import put_sae
from mistudio import Client, backing_up
from mistudio.cli import main
from studio import running

from mistudiod.backup_file import unpack

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("studio") / "data"
    put_sae(data, "pico")
    (put_artifact(data, "datasets", "big", "dataset.json") / "data.parquet").write_bytes(os.urandom(2 << 20))
    with running(data, backup_at="23:15", backups_kept=5) as url:
        yield url


@pytest.fixture
def run(host: str) -> Run:
    def invoke(*args: str) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": host}).invoke(main, list(args))

    return invoke


def test_it_is_one_file_in_the_folder_that_is_named(run: Run, tmp_path: Path) -> None:
    done = run("backup", "--to", str(tmp_path))
    assert done.exit_code == 0, done.output
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("mistudio-") and file.suffix == ".tar" and file.stat().st_mode & 0o777 == 0o600
    assert f"{file} has " in done.stderr and "was read again: it is whole" in done.stderr
    assert (
        "not in it, beside models, activations and secrets: 2.1 MB of 1 things\n  datasets/big (2.1 MB)" in done.stderr
    )
    with file.open("rb") as opened:
        assert unpack(opened, None)["left_out"] == [{"what": "datasets/big", "bytes": 2 << 20}]


def test_with_json_it_says_the_file_and_what_it_lacks(run: Run, tmp_path: Path) -> None:
    found = json.loads(run("backup", "--to", str(tmp_path / "b.tar"), "--saes", "--json").stdout)
    assert found["file"] == str(tmp_path / "b.tar") and Path(found["file"]).is_file()
    assert found["nightly"] == {"at": "23:15", "kept": 5, "names": [], "failed": None}


def test_a_dry_run_says_what_would_be_in_it_and_how_the_nights_are(run: Run, tmp_path: Path) -> None:
    said = run("backup", "--dry-run", "--to", str(tmp_path)).stderr
    assert "each night at 23:15 one is made on the studio's disk, 5 are kept" in said
    assert "files, " in said and list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_before_anything_is_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.tar").write_text("mine")
    for place, why in ((tmp_path / "b.tar", "is there already"), (tmp_path / "no" / "b.tar", "there is no folder")):
        refused = run("backup", "--to", str(place))
        assert refused.exit_code == 2 and why in refused.stderr, refused.output
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(backing_up.shutil, "disk_usage", lambda _: full)
    refused = run("backup", "--to", str(tmp_path / "c.tar"))
    assert refused.exit_code == 2 and "the backup cannot be made: it takes " in refused.stderr
    assert (tmp_path / "b.tar").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["../b.tar", "/tmp/b.tar", ".profile", "", "mistudio-/../a-20261130-0412.tar"])
def test_a_studio_does_not_choose_the_place_by_the_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="no name for one: name the file yourself"):
        backing_up.place_of(tmp_path / "in", name)
    assert backing_up.place_of(tmp_path / "in" / "mine.tar", name) == tmp_path / "in" / "mine.tar"


@pytest.mark.parametrize("how", ["cut off", "damaged", "interrupted"])
def test_one_that_does_not_come_whole_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    real = Client.make_backup

    class Half:
        def __init__(self, whole: Any) -> None:
            self._whole = whole

        def __enter__(self) -> Iterator[bytes]:
            blocks = self._whole.__enter__()
            yield from (block.replace(b"SQLite", b"sqlite") for block in blocks) if how == "damaged" else [next(blocks)]
            if how == "interrupted":
                raise KeyboardInterrupt

        def __exit__(self, *error: Any) -> None:
            self._whole.__exit__(*error)

    monkeypatch.setattr(Client, "make_backup", lambda self, saes: Half(real(self, saes)))
    done = run("backup", "--to", str(tmp_path))
    assert done.exit_code == (130 if how == "interrupted" else 2)
    assert how == "interrupted" or (f"the backup is {how}" in done.stderr and "nothing was kept" in done.stderr)
    assert list(tmp_path.iterdir()) == []
