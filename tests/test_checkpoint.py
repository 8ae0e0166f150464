"""Checkpoints: exact, whole or absent, and the one before is there when the newest is damaged."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from mistudiod.engine import checkpoint
from mistudiod.paths import publish


def tensors(value: float) -> dict[str, torch.Tensor]:
    torch.manual_seed(int(value))
    return {
        "W": torch.randn(5, 3),
        "step": torch.tensor(value),
        "count": torch.arange(4),
        "half": torch.ones(2).bfloat16(),
    }


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir())


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    about = {"tokens": 12, "batches": {"pass": 1, "block": 2, "offset": 3}, "scale": 0.1 + 0.2}
    checkpoint.save(tmp_path, 7, tensors(7), about, publish)
    found = checkpoint.latest(tmp_path)
    assert found.number == 7
    assert found.about == about
    for name, tensor in tensors(7).items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 20, 300):
        checkpoint.save(tmp_path, step, tensors(step), {}, publish)
    assert steps(tmp_path) == [20, 300]
    assert checkpoint.latest(tmp_path).number == 300


def test_there_is_none_before_the_first(tmp_path):
    assert checkpoint.latest(tmp_path / "absent") is None
    assert checkpoint.latest(tmp_path) is None


def truncate(folder):
    path = folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(folder):
    data = bytearray((folder / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "state.safetensors").write_bytes(data)


def remove_state(folder):
    (folder / "state.safetensors").unlink()


def cut_manifest(folder):
    (folder / "manifest.json").write_text('{"step": 2')


def empty_manifest(folder):
    (folder / "manifest.json").write_text("[]")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, remove_state, cut_manifest, empty_manifest])
def test_a_damaged_checkpoint_is_passed_by_with_a_word_in_the_log(tmp_path, caplog, damage):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, tensors(step), {}, publish)
    damage(tmp_path / "2")
    assert checkpoint.latest(tmp_path).number == 1
    assert "checkpoint 2 cannot be used" in caplog.text


def test_saving_goes_on_over_a_damaged_checkpoint_of_the_same_step(tmp_path):
    for step in (1, 3):
        checkpoint.save(tmp_path, step, tensors(step), {}, publish)
    truncate(tmp_path / "3")
    checkpoint.save(tmp_path, 2, tensors(2), {}, publish)
    assert steps(tmp_path) == [1, 2]  # not the damaged one, which would stand before a whole one
    checkpoint.save(tmp_path, 3, tensors(3), {}, publish)
    assert checkpoint.latest(tmp_path).number == 3


def test_a_failed_save_leaves_what_was_there(tmp_path):
    checkpoint.save(tmp_path, 1, tensors(1), {}, publish)

    def disk_full(partial, final):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 2, tensors(2), {}, disk_full)
    assert steps(tmp_path) == [1]


def test_left_overs_of_a_killed_writer_are_swept_by_the_next_save(tmp_path):
    (tmp_path / ".partial-5-123").mkdir()
    (tmp_path / ".partial-5-123" / "state.safetensors").write_bytes(b"half")
    checkpoint.save(tmp_path, 6, tensors(6), {}, publish)
    assert steps(tmp_path) == [6]


KILLED_BEFORE_RENAME = """
import os, signal, sys, torch
from pathlib import Path
from mistudiod.engine import checkpoint
from mistudiod.paths import publish

def die(partial, final):
    os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
checkpoint.save(folder, 1, {"W": torch.ones(3)}, {}, publish)
checkpoint.save(folder, 2, {"W": torch.zeros(3)}, {}, die)
"""


def test_a_kill_between_writing_and_renaming_leaves_the_checkpoint_before(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_RENAME, str(tmp_path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert checkpoint.latest(tmp_path).number == 1
    checkpoint.save(tmp_path, 2, tensors(2), {}, publish)
    assert steps(tmp_path) == [1, 2]


def test_a_manifest_names_number_size_and_sha256(tmp_path):
    folder = checkpoint.save(tmp_path, 9, tensors(9), {"tokens": 1}, publish)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["number"] == 9
    assert manifest["bytes"] == (folder / "state.safetensors").stat().st_size
    assert len(manifest["sha256"]) == 64


def test_as_many_as_asked_are_kept_and_the_best_beside_them(tmp_path):
    for number, fvu in ((1, None), (2, 0.3), (3, 0.2), (4, 0.4), (5, 0.5), (6, None)):
        checkpoint.save(tmp_path, number, tensors(number), {"held_out_fvu": fvu}, publish, keep=2)
    assert steps(tmp_path) == [3, 5, 6]
    checkpoint.save(tmp_path, 7, tensors(7), {"held_out_fvu": 0.1}, publish, keep=1)
    assert steps(tmp_path) == [7]


def test_checkpoints_of_other_autoencoders_stay(tmp_path):
    for number, saes in ((1, ["a"]), (2, ["b"]), (3, ["b"]), (4, ["b"])):
        checkpoint.save(tmp_path, number, tensors(number), {"saes": saes}, publish, keep=2)
    assert steps(tmp_path) == [1, 3, 4]
    assert checkpoint.latest(tmp_path, lambda about: about["saes"] == ["a"]).number == 1
    assert checkpoint.exists(tmp_path, lambda about: about["saes"] == ["b"])
    assert not checkpoint.exists(tmp_path, lambda about: about["saes"] == ["c"])
    checkpoint.keep_only(tmp_path, {1, 4})
    assert steps(tmp_path) == [1, 4]


def test_saving_a_small_state_often_is_cheap(tmp_path):
    began = time.monotonic()
    for step in range(20):
        checkpoint.save(tmp_path, step, tensors(step), {}, publish)
    assert time.monotonic() - began < 10
