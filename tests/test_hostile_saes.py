"""SAE files that were made to do harm, and folders that change while they are read: one sentence, nothing left."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub import Hub, served_hub  # noqa: F401
from hypothesis import example, given, settings
from hypothesis import strategies as st
from repos_of_saes import D, F, add, dictionary_learning, gemma_scope, hf_home, refused, sparsify, weights  # noqa: F401
from run_job import folders, run_job
from tiny_models import tiny_model

from mistudiod.engine.formats import FolderListing, find, read
from mistudiod.engine.formats.npz import Npz
from mistudiod.engine.formats.pickled import shapes_in
from mistudiod.engine.tensor_files import TensorFile
from mistudiod.worker import add_sae
from mistudiod.worker.link import Refused

SCOPE = "gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_9"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hostile")
    run_job(home / "data", "add_model", source=str(tiny_model("llama", home / "tiny")), name="m")
    return home / "data"


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


# safetensors

Header = dict[str, Any]


def with_header(path: Path, text: bytes, length: int | None = None) -> None:
    """Put another header in front of the data."""
    old = path.read_bytes()
    (before,) = struct.unpack("<Q", old[:8])
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + old[8 + before :])


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        return dict(json.loads(file.read(struct.unpack("<Q", file.read(8))[0])))


def changed(change: Callable[[Header], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        header = header_of(path)
        change(header)
        with_header(path, json.dumps(header).encode())

    return damage


def twice(path: Path) -> None:
    text = json.dumps(header_of(path))
    entry = json.dumps(header_of(path)["b_dec"])
    with_header(path, (text[:-1] + f', "b_dec": {entry}}}').encode())


def padded(path: Path) -> None:
    with_header(path, json.dumps(header_of(path)).encode() + b" " * (2 << 20))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: with_header(path, b"{}", 100 << 30), "has 107,374,182,400 bytes, and 1,048,576 may"),
        (lambda path: with_header(path, b"{}", (1 << 64) - 1), "its header has 18,446,744,073,709,551,615 bytes"),
        (padded, "and 1,048,576 may be"),
        (lambda path: with_header(path, b"[" * 60_000), "does not hold JSON"),
        (twice, "it names 'b_dec' twice"),
        (changed(lambda header: header["W_dec"].update(shape=[1 << 63, 2])), "does not describe 'W_dec'"),
        (changed(lambda header: header["W_dec"].update(shape=[(1 << 63) - 1] * 2)), "does not fit its shape"),
        (changed(lambda header: header["W_dec"].update(shape=[-F, -D])), "does not describe 'W_dec'"),
        (changed(lambda header: header["W_dec"].update(data_offsets=[-4, 0])), "does not describe 'W_dec'"),
        (changed(lambda header: header["W_dec"].update(data_offsets=[0, 1 << 62])), "lies beyond its end"),
        (changed(lambda header: header["W_dec"].update(dtype="Q4")), "a type of number that cannot be read"),
        (changed(lambda header: header["W_dec"].update(dtype="BF16")), "does not fit its shape"),
        (changed(lambda header: header["b_dec"].update(header["encoder.bias"])), "overlaps|bytes of no tensor"),
        (changed(lambda header: header.update(post=header.pop("b_dec"))), "has no b_dec|holds no SAE"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is cut short"),
    ],
)  # fmt: skip
def test_headers_made_to_do_harm(data: Path, tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    source = sparsify(tmp_path / "layers.1")
    damage(source / "sae.safetensors")
    assert re.search(says, refused(data, source, model="m"))


SOME = st.integers(-(1 << 65), 1 << 65) | st.integers(0, 64)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F64", "I64", "F8", ""]) | st.none(),
        "shape": st.lists(SOME, max_size=9) | st.none(),
        "data_offsets": st.lists(SOME, max_size=3) | st.text(max_size=2),
    },
)


@settings(max_examples=300, deadline=None)
@given(
    header=st.dictionaries(st.text(max_size=5), ENTRY, max_size=4), data=st.binary(max_size=64), cut=st.integers(0, 90)
)
@example(header={"a": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}}, data=b"", cut=90)
def test_any_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, header: Header, data: bytes, cut: int
) -> None:
    text = json.dumps(header).encode()
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes((struct.pack("<Q", len(text)) + text + data)[: 8 + len(text) + len(data) - max(0, 90 - cut)])
    with suppress(ValueError):
        file = TensorFile(path)
        for name, stored in file.stored.items():
            assert stored.items <= len(data)
            with suppress(ValueError):
                assert file.take(name, stored.shape).isfinite().all()


# npz


def npy(header: bytes, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + body


def zipped(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def arrays() -> dict[str, bytes]:
    found = {}
    for name, one in weights().items():
        out = io.BytesIO()
        np.save(out, one.numpy())
        found[f"{name}.npy"] = out.getvalue()
    return found


class Gadget:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def test_an_array_of_objects_is_a_pickle_and_is_not_read(data: Path, tmp_path: Path) -> None:
    out, mark = io.BytesIO(), tmp_path / "ran"
    np.save(out, np.array([Gadget(mark)], object), allow_pickle=True)
    zipped(tmp_path / SCOPE / "params.npz", arrays() | {"b_dec.npy": out.getvalue()})
    assert "is of |O numbers, which cannot be weights" in refused(data, tmp_path / SCOPE, model="m")
    assert not mark.exists()


def entry(size: int) -> bytes:
    return f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size},)}}\n".encode()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"b_dec.npy": npy(entry(1 << 39))}, "not as long as its header says"),
        ({"b_dec.npy": npy(entry(1 << 50))}, "which cannot be weights"),
        ({"b_dec.npy": npy(entry(-1))}, "which cannot be weights"),
        ({"b_dec.npy": npy(b"__import__('os').system('x')")}, "has a damaged header"),
        ({"b_dec.npy": npy(b"(" * 3000)}, "has a damaged header"),
        ({"b_dec.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31)}, "has a header larger than any real one"),
        ({"b_dec.npy": b"\x93NUMPY"}, "is no numpy array"),
        ({"b_dec.npy": b"\x93NUMPY\x01\x00\x01"}, "damaged or cut short"),
        ({"b_dec.npy": b"cos\nsystem\n(S'x'\ntR."}, "is no numpy array"),
        ({"W_ENC.npy": arrays()["W_enc.npy"]}, "it holds two arrays of one name"),
        ({f"x{n}.npy": b"" for n in range(70)}, "would unpack into 75 arrays"),
    ],
)
def test_archives_made_to_do_harm(data: Path, tmp_path: Path, members: dict[str, bytes], says: str) -> None:
    zipped(tmp_path / SCOPE / "params.npz", arrays() | members)
    assert says in refused(data, tmp_path / SCOPE, model="m")


def test_an_archive_that_unpacks_into_far_more_is_refused_by_its_directory(data: Path, tmp_path: Path) -> None:
    body = npy(entry(16 << 20), bytes(64 << 20))
    zipped(tmp_path / SCOPE / "params.npz", {"b_dec.npy": body}, zipfile.ZIP_DEFLATED)
    assert "20 times its size or more" in refused(data, tmp_path / SCOPE, model="m")
    zipped(tmp_path / SCOPE / "params.npz", arrays(), zipfile.ZIP_LZMA)
    assert "packed in a way that numpy does not use" in refused(data, tmp_path / SCOPE, model="m")


def test_a_name_in_an_archive_leads_nowhere(data: Path, tmp_path: Path) -> None:
    zipped(tmp_path / SCOPE / "params.npz", arrays() | {"../../../out/x.npy": arrays()["b_dec.npy"]})
    assert "holds no SAE of a known layout" in refused(data, tmp_path / SCOPE, model="m")
    assert not (tmp_path / "out").exists()


def test_numbers_that_float32_cannot_hold_are_not_finite(data: Path, tmp_path: Path) -> None:
    (tmp_path / SCOPE).mkdir(parents=True)
    state = {name: one.double().numpy() for name, one in weights().items()}
    state["b_dec"][0] = 1e200
    np.savez(tmp_path / SCOPE / "params.npz", **state)
    assert "b_dec that is not all finite" in refused(data, tmp_path / SCOPE, model="m")


def test_a_scale_of_latents_that_no_rule_uses_is_refused(data: Path, tmp_path: Path) -> None:
    for shape in ((F,), ()):
        (tmp_path / SCOPE).mkdir(parents=True, exist_ok=True)
        state = {name: one.numpy() for name, one in weights().items()}
        np.savez(tmp_path / SCOPE / "params.npz", **state, scaling_factor=np.full(shape, 2, np.float32))
        assert "has a scaling_factor that is not 1" in refused(data, tmp_path / SCOPE, model="m")
    np.savez(tmp_path / SCOPE / "params.npz", **state, scaling_factor=np.ones(F, np.float32))
    add(data, tmp_path / SCOPE, model="m")


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=80) | st.binary(max_size=80).map(lambda b: b"\x93NUMPY\x01\x00" + b), how=st.booleans()
)
@example(content=b"\x93NUMPY\x01", how=False)
def test_any_array_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, how: bool) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    zipped(folder / "a.npz", {"a.npy": content}, zipfile.ZIP_DEFLATED if how else zipfile.ZIP_STORED)
    with suppress(ValueError):
        Npz(FolderListing(folder / "a.npz"), "a.npz")


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 1 << 16), new=st.binary(min_size=1, max_size=6), cut=st.booleans())
def test_an_archive_with_any_bytes_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, new: bytes, cut: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "bent"
    zipped(folder / "params.npz", arrays(), zipfile.ZIP_DEFLATED)
    whole = (folder / "params.npz").read_bytes()
    at %= len(whole)
    (folder / "params.npz").write_bytes(whole[:at] if cut else whole[:at] + new + whole[at + len(new) :])
    listing = FolderListing(folder)
    with suppress(ValueError):
        read(listing, find(listing)[0])


# Pickles


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # Python's own, of such a text
@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 1 << 16), new=st.binary(max_size=8), cut=st.booleans(), new_format=st.booleans())
@example(at=152, new=b"\\", cut=False, new_format=False)
def test_a_pickle_of_any_bytes_is_looked_at_in_peace(
    tmp_path_factory: pytest.TempPathFactory, at: int, new: bytes, cut: bool, new_format: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"pickles-{new_format}"
    original = folder / "original"
    if not folder.exists():
        folder.mkdir()
        torch.save({"a": torch.ones(3, 2), "b": torch.ones(())}, original, _use_new_zipfile_serialization=new_format)
    whole = original.read_bytes()
    at %= len(whole)
    (folder / "x.pt").write_bytes(whole[:at] if cut else whole[:at] + new + whole[at + len(new) :])
    shapes_in(FolderListing(folder / "x.pt"), "x.pt")


def test_a_pickle_within_a_pickle_s_archive_is_refused_too(data: Path, tmp_path: Path) -> None:
    source, mark = dictionary_learning(tmp_path / "trainer_0"), tmp_path / "ran"
    with zipfile.ZipFile(source / "ae.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    evil = pickle.dumps(Gadget(mark), protocol=2)
    inner = next(name for name in members if name.endswith("data.pkl"))
    zipped(source / "ae.pt", members | {inner: evil})
    assert "nothing in it was run" in refused(data, source, allow_pickle=True)
    with zipfile.ZipFile(source / "ae.pt", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(inner, members[inner])  # of two of one name, readers take either
        archive.writestr("../../../evil.py", b"x")
    assert "is damaged" in refused(data, source, allow_pickle=True)
    assert not mark.exists() and not (tmp_path / "evil.py").exists()


# Configs


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "does not hold a JSON object"),
        ('{"k": NaN, "d_in": 32, "num_latents": 96}', "has k null, which must be a whole number above 0"),
        ('{"k": 1e999, "d_in": 32, "num_latents": 96}', "which must be a whole number above 0"),
        ('{"k": 6, "d_in": 1%s}' % ("0" * 400), "which must be a whole number above 0"),
        ('{"k": 6, "d_in": 1%s}' % ("0" * 5000), "cannot be read"),
        ('{"k": 6, "a": ' + "[" * 600 + "]" * 600 + "}", "is nested more than 32 deep"),
        ('{"k": 6, "a": ' + "[" * 100_000 + "]" * 100_000 + "}", "cannot be read"),
        ('{"k": 6, "activation": "a\\nb\\ud800"}', "has activation a?b?, and only topk is understood"),
    ],
)
def test_configs_made_to_do_harm(data: Path, tmp_path: Path, text: str, says: str) -> None:
    source = sparsify(tmp_path / "layers.1")
    (source / "cfg.json").write_text(text)
    assert says in refused(data, source, model="m")


def test_what_a_config_says_is_kept_where_it_can_be_written(data: Path, tmp_path: Path) -> None:
    add(data, gemma_scope(tmp_path / SCOPE), "first", model="m")
    shutil.copytree(data / "saes" / "first", tmp_path / "ours")
    config = json.loads((tmp_path / "ours/cfg.json").read_text())
    odd = {
        "model_name": "a\ud800\nb",
        "note": "\udfff",
        "size": float("inf"),
        "l0": float("nan"),
        "context_size": 1e400,
    }
    config["metadata"] |= odd | {"deep": json.loads("[" * 20 + "]" * 20)}
    (tmp_path / "ours/cfg.json").write_text(json.dumps(config))
    recipe = add(data, tmp_path / "ours", model="m")
    assert recipe["imported"]["model"] == "a??b" and recipe["imported"]["context"] is None
    assert run_job(data, "preview_sae", source=str(tmp_path / "ours"))["saes"][0]["model"] == "a??b"
    config["d_sae"] = 10**400
    (tmp_path / "ours/cfg.json").write_text(json.dumps(config))
    with pytest.raises(Refused):
        add(data, tmp_path / "ours", "other", model="m")


# Folders


def test_a_pipe_is_not_waited_for(data: Path, tmp_path: Path) -> None:
    source = gemma_scope(tmp_path / SCOPE)
    os.mkfifo(source / "other.npz")
    os.mkfifo(source / "cfg.json")
    (source / "gone.npz").symlink_to(tmp_path / "nowhere")
    (source / "round.npz").symlink_to(source / "round.npz")
    began = time.monotonic()
    add(data, source, model="m")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("when", ["before its weights are read", "while they are read", "before they are hashed"])
def test_a_source_that_vanishes(data: Path, tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sparsify(tmp_path / "layers.1")

    def gone(work: Callable[..., Any], first: bool) -> Callable[..., Any]:
        def done(*args: Any, **more: Any) -> Any:
            if first:
                shutil.rmtree(source, ignore_errors=True)
            found = work(*args, **more)
            shutil.rmtree(source, ignore_errors=True)
            return found

        return done

    if when == "before its weights are read":
        monkeypatch.setattr(add_sae, "read", gone(add_sae.read, True))
    elif when == "while they are read":
        monkeypatch.setattr(TensorFile, "take", gone(TensorFile.take, False))
    else:
        monkeypatch.setattr(add_sae, "read", gone(add_sae.read, False))
    said = refused(data, source, model="m")
    assert said == f"cannot read {source}: No such file or directory"


def test_a_file_that_is_cut_short_while_it_is_read(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sparsify(tmp_path / "layers.1")
    take = TensorFile.take

    def cut(self: TensorFile, *args: Any, **more: Any) -> Any:
        os.truncate(source / "sae.safetensors", 1000)
        return take(self, *args, **more)

    monkeypatch.setattr(TensorFile, "take", cut)
    assert "was cut short while it was read" in refused(data, source, model="m")


def test_a_link_that_leads_out_of_a_folder_is_followed_for_its_owner_only(data: Path, tmp_path: Path) -> None:
    """The studio's own user may name any file; what others name is looked at by the daemon (test_refused_sources)."""
    elsewhere = sparsify(tmp_path / "elsewhere" / "layers.1")
    (tmp_path / "links" / "layers.1").mkdir(parents=True)
    for file in elsewhere.iterdir():
        (tmp_path / "links" / "layers.1" / file.name).symlink_to(file)
    (tmp_path / "links" / "folder").symlink_to(tmp_path / "elsewhere")  # folders that are links are not walked into
    assert add(data, tmp_path / "links", model="m")["imported"]["path"] == "layers.1"


def test_a_disk_that_fills_up_while_a_pickle_is_converted_is_a_full_disk(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dictionary_learning(tmp_path / "trainer_0")
    monkeypatch.setattr("mistudiod.engine.formats.pickles.sys.executable", str(full_disk(tmp_path)))
    with pytest.raises(OSError, match="No space left"):
        add(data, source, allow_pickle=True)
    assert folders(data, "saes") == []


def full_disk(folder: Path) -> Path:
    """A Python in which writing tensors finds the disk full."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {folder / "run.py"} "$@"\n')
    python.chmod(0o755)
    (folder / "run.py").write_text(
        "import errno, runpy, sys\n"
        "from mistudiod.engine.formats import pickles\n"
        "def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "pickles.write_tensors = full\n"
        "from pathlib import Path\n"
        "sys.exit(pickles._main(Path(sys.argv[3]), Path(sys.argv[4])))\n"
    )
    return python


def test_sources_of_three_saes_are_told_with_what_to_type(data: Path, tmp_path: Path) -> None:
    for layer in (0, 1, 2):
        sparsify(tmp_path / "repo" / f"layers.{layer}")
    said = refused(data, tmp_path / "repo", model="m")
    assert said == (
        f"{tmp_path / 'repo'} holds 3 SAEs: say which, as {tmp_path / 'repo'}:layers.0; "
        "there are layers.0, layers.1, layers.2"
    )
