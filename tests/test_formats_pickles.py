"""Pickles: told apart without unpickling them, converted in a process of their own, and never run."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mistudiod.engine.formats import FolderListing
from mistudiod.engine.formats.pickled import shapes_in, weights_of
from mistudiod.engine.formats.pickles import Converted, convert

TENSORS = OrderedDict(
    {"W": torch.arange(12.0).reshape(3, 4), "b": torch.ones(3, dtype=torch.bfloat16), "k": torch.tensor(5)}
)


class Gadget:
    """Pickled, it is an order to run a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def in_a_zip(path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ae/data.pkl", pickled)
        archive.writestr("ae/version", "3\n")
        archive.writestr("ae/byteorder", "little")


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_tensors_and_single_values_come_out_as_they_went_in(tmp_path: Path, new: bool) -> None:
    state = {"ae": TENSORS, "step": 7, "name": "ReLU", "optimizer": {"state": {0: torch.ones(4)}}, "lr": 0.5}
    torch.save(state, tmp_path / "ae.pt", _use_new_zipfile_serialization=new)
    convert(tmp_path / "ae.pt", tmp_path / "out.safetensors")
    read = load_file(tmp_path / "out.safetensors")
    assert read.keys() == {"ae.W", "ae.b"}
    assert torch.equal(read["ae.W"], TENSORS["W"])
    assert torch.equal(read["ae.b"], torch.ones(3))
    assert json.loads((tmp_path / "out.json").read_text()) == {"ae.k": 5, "step": 7, "name": "ReLU", "lr": 0.5}


@pytest.mark.parametrize("layout", ["zip", "plain", "within a state dict"])
def test_a_gadget_is_refused_in_one_sentence_and_nothing_of_it_is_run(tmp_path: Path, layout: str) -> None:
    mark, file = tmp_path / "ran", tmp_path / "evil.pt"
    gadget = Gadget(mark)
    if layout == "zip":
        in_a_zip(file, pickle.dumps(gadget, protocol=2))
    elif layout == "plain":
        file.write_bytes(pickle.dumps(gadget, protocol=2))
    else:
        torch.save({**TENSORS, "more": gadget}, file)
    assert isinstance(shapes_in(FolderListing(file), "evil.pt"), dict)  # to look at it is harmless too
    with pytest.raises(ValueError, match=r"^evil\.pt asks for posix\.system, which is more than numbers[^\n]*$"):
        convert(file, tmp_path / "out.safetensors")
    assert not mark.exists()
    assert sorted(tmp_path.iterdir()) == [file]


def test_the_process_that_converts_has_no_secret_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("ANYTHING_ELSE", "too")
    started: list[dict[str, str]] = []
    run = subprocess.run

    def watched(*args: object, **options: object) -> object:
        started.append(options["env"])  # type: ignore[arg-type]
        return run(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", watched)
    torch.save(TENSORS, tmp_path / "ae.pt")
    convert(tmp_path / "ae.pt", tmp_path / "out.safetensors")
    assert started[0].keys() <= {"PATH", "PYTHONPATH", "OMP_NUM_THREADS", "LD_LIBRARY_PATH"}


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    torch.save({"W": torch.zeros(1).expand(1 << 20, 1 << 12)}, tmp_path / "huge.pt")
    with pytest.raises(ValueError, match=r"^huge\.pt claims more numbers than there are in it$"):
        convert(tmp_path / "huge.pt", tmp_path / "out.safetensors")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["huge.pt"]


def test_a_compressed_file_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    torch.save({"W": torch.zeros(64, 64)}, tmp_path / "real.pt")
    with (
        zipfile.ZipFile(tmp_path / "real.pt") as real,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in real.namelist():
            archive.writestr(name, real.read(name))
    with pytest.raises(ValueError, match=r"^bomb\.pt is compressed, [^\n]*$"):
        convert(tmp_path / "bomb.pt", tmp_path / "out.safetensors")


def test_a_storage_larger_than_its_file_is_stopped_by_the_limit_of_memory(tmp_path: Path) -> None:
    torch.save({"W": torch.zeros(12)}, tmp_path / "real.pt", _use_new_zipfile_serialization=False)
    twelve, eight_gib = b"K\x0cN", b"J\xff\xff\xff\x7fN"  # of so many floats, before the end of their persistent id
    data = (tmp_path / "real.pt").read_bytes()
    assert data.count(twelve) == 1
    (tmp_path / "huge.pt").write_bytes(data.replace(twelve, eight_gib))
    with pytest.raises(ValueError, match=r"^huge\.pt [^\n]*allocate[^\n]*$"):
        convert(tmp_path / "huge.pt", tmp_path / "out.safetensors")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00."])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pt").write_bytes(content)
    assert shapes_in(FolderListing(tmp_path), "bad.pt") == {}
    with pytest.raises(ValueError, match=r"^bad\.pt [^\n]*$"):
        convert(tmp_path / "bad.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_cut_short_is_one_sentence(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "ae.pt")
    (tmp_path / "ae.pt").write_bytes((tmp_path / "ae.pt").read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"^ae\.pt is [^\n]*$"):
        convert(tmp_path / "ae.pt", tmp_path / "out.safetensors")


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_shapes_are_told_from_the_opcodes(tmp_path: Path, new: bool) -> None:
    linear = torch.nn.Linear(6, 4).state_dict()
    state = {"step": 3, "ae": {**linear, "t": torch.tensor(1.0), "same": torch.zeros(4, 6).half()}, "act": "TopK"}
    torch.save(state, tmp_path / "ae.pt", _use_new_zipfile_serialization=new)
    found = shapes_in(FolderListing(tmp_path), "ae.pt")
    assert found == {"weight": (4, 6), "bias": (4,), "t": (), "same": (4, 6)}


def test_a_listing_gives_a_pickle_only_when_pickles_are_allowed(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "ae.pt")
    listing = FolderListing(tmp_path)
    with pytest.raises(ValueError, match=r"^ae\.pt is a pickle, .* it is read when pickles are allowed$"):
        weights_of(listing, "ae.pt")
    (tmp_path / "scratch").mkdir()
    allowed = Converted(listing, tmp_path / "scratch")
    weights = weights_of(allowed, "ae.pt")
    assert weights.number("k") == 5
    assert torch.equal(weights.tensors.take("W", (4, 3), turned=True), TENSORS["W"].t())
    assert allowed.path("ae.pt") == allowed.path("ae.pt")
