"""Activations that are kept on disk: the same values as without, shared by later runs, and whole after any end."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from token_windows import CONTEXT, D_IN, harvest

from mistudiod.engine.activation_store import ActivationStore
from mistudiod.engine.activations import ActivationBatches
from mistudiod.kept_activations import BITS, MANIFEST, VALUES, Kept, model_key, tokenization_key, windows_there

WINDOWS, TRAIN = 60, 50
KEPT = Kept("m", "fp32", "t", "blocks.0.hook_resid_post", "bf16", WINDOWS, CONTEXT, D_IN)
INT8 = replace(KEPT, form="int8")


def activations(n=WINDOWS, width=D_IN, seed=0):
    return torch.randn(n, CONTEXT, width, generator=torch.Generator().manual_seed(seed)) * 7


def random_model(ids):
    """Activations that bf16 does not hold exactly, of which each depends on its token alone."""
    return torch.sin(ids[..., None] * torch.arange(1, D_IN + 1)) * 3


class Counted:
    def __init__(self, model=random_model):
        self.model, self.windows, self.most = model, 0, np.inf

    def __call__(self, ids):
        if self.windows + len(ids) > self.most:
            raise KeyboardInterrupt
        self.windows += len(ids)
        return self.model(ids)


def store(folder: Path, kept: Kept = KEPT, **more) -> ActivationStore:
    return ActivationStore(kept.folder(folder), kept, **more)


def batches_of(model, stores=None, seed=0, **more):
    return ActivationBatches(harvest(model, stores=stores, **more), TRAIN, 10, seed, 96)


def take(batches, n=100):
    return torch.stack([next(batches) for _ in range(n)])


@pytest.mark.parametrize("kept", [KEPT, INT8])
def test_windows_come_back_as_they_were_added_in_any_order_and_after_a_reopening(tmp_path, kept):
    x, order = activations(), np.random.default_rng(0).permutation(WINDOWS)
    with store(tmp_path, kept) as new:
        told = torch.empty(WINDOWS, CONTEXT, D_IN, dtype=torch.bfloat16)
        for part in np.array_split(order, 7):
            told[torch.from_numpy(part)] = new.add(part, x[torch.from_numpy(part)])
            new.commit()
    with store(tmp_path, kept) as again:
        assert again.has(order).all()
        for part in np.array_split(order[::-1], 4):
            assert torch.equal(again.read(part), told[torch.from_numpy(part.copy())])
    if kept is KEPT:
        assert torch.equal(told, x.bfloat16())


def test_int8_is_wrong_by_half_a_step_of_its_token_and_by_the_rounding_to_bf16(tmp_path):
    x = activations()
    x[0, 0] = 0
    x[1, 1] = 1e-42  # no normal number
    with store(tmp_path, INT8) as kept:
        found = kept.add(np.arange(WINDOWS), x).float()
    step = x.abs().amax(2, keepdim=True) / 127
    assert ((found - x).abs() <= 0.5001 * step + 2**-8 * x.abs() + 1e-38).all()
    assert torch.equal(found[0, 0], torch.zeros(D_IN))


def test_nothing_is_there_before_it_was_committed(tmp_path):
    with store(tmp_path) as kept:
        kept.add(np.arange(10), activations(10))
        assert kept.windows_there == 0
        kept.commit()
        assert kept.has(np.array([0, 9, 10])).tolist() == [True, True, False]
        kept.add(np.arange(20, 25), activations(5))
    with store(tmp_path) as kept:
        assert kept.windows_there == 10
    assert windows_there(KEPT.folder(tmp_path), KEPT) == 10


def test_the_file_takes_the_space_of_what_is_there_only(tmp_path):
    large = replace(KEPT, windows=1_000_000)
    with store(tmp_path, large) as kept:
        kept.add(np.array([999_999]), activations(1))
        kept.commit()
    values = (large.folder(tmp_path) / VALUES).stat()
    assert values.st_size == large.bytes == 1_000_000 * CONTEXT * D_IN * 2
    assert values.st_blocks * 512 <= 1 << 20
    assert replace(INT8, windows=1).bytes == CONTEXT * (D_IN + 4)


@pytest.mark.parametrize("kept", [KEPT, INT8])
def test_a_training_sees_the_same_whether_values_come_from_the_model_or_the_disk(tmp_path, kept):
    first, second = Counted(), Counted()
    with store(tmp_path, kept) as fresh:
        expected = take(batches_of(first, [fresh]))
        assert first.windows == TRAIN, "later passes read"
    with store(tmp_path, kept) as kept_before:
        batches = batches_of(second, [kept_before], seed=0)
        assert torch.equal(take(batches), expected)
        assert second.windows == 0
    if kept is KEPT:
        assert torch.equal(take(batches_of(random_model)), expected)


def test_a_later_run_in_another_order_needs_no_model_and_one_with_more_windows_only_those(tmp_path):
    with store(tmp_path) as kept:
        take(batches_of(random_model, [kept]))
    model = Counted()
    with store(tmp_path) as kept:
        assert torch.equal(take(batches_of(model, [kept], seed=5)), take(batches_of(random_model, seed=5)))
        assert model.windows == 0
        source = harvest(model, stores=[kept])
        held_out = [torch.cat(list(source.first(np.arange(TRAIN - 5, WINDOWS), 10_000))) for _ in range(2)]
        assert model.windows == WINDOWS - TRAIN, "held-out windows are kept as well"
    expected = torch.cat(list(harvest(random_model).first(np.arange(TRAIN - 5, WINDOWS), 10_000)))
    assert torch.equal(held_out[0], expected)
    assert torch.equal(held_out[1], expected)


def two_hooks(ids):
    return torch.cat([random_model(ids), random_model(ids + 1000)], dim=-1)


def test_hooks_are_shared_one_by_one(tmp_path):
    other = replace(KEPT, hook="blocks.1.hook_resid_post")
    widths = (D_IN, D_IN)
    expected = take(batches_of(two_hooks, widths=widths))
    with ExitStack() as opened:
        stores = [opened.enter_context(store(tmp_path, one)) for one in (KEPT, other)]
        assert torch.equal(take(batches_of(two_hooks, stores, widths=widths)), expected)
    alone = Counted(lambda ids: two_hooks(ids)[..., D_IN:])
    with store(tmp_path, other) as one:
        assert torch.equal(take(batches_of(alone, [one])), expected[..., D_IN:])
        assert alone.windows == 0, "a later run with one of the hooks"
    third, both = replace(KEPT, hook="blocks.2.hook_resid_post"), Counted(two_hooks)
    with ExitStack() as opened:
        stores = [opened.enter_context(store(tmp_path, one)) for one in (third, other)]
        assert torch.equal(take(batches_of(both, stores, widths=widths)), expected)
        assert both.windows == TRAIN, "a later run with another hook beside one of them"


def test_a_training_that_is_broken_off_goes_on_as_if_it_had_not_been(tmp_path):
    expected = take(batches_of(random_model), 60)
    with store(tmp_path) as kept:
        model = Counted()
        batches = batches_of(model, [kept])
        assert torch.equal(take(batches, 7), expected[:7])
        state, model.most = batches.state(), model.windows + 7
        with pytest.raises(KeyboardInterrupt):
            take(batches, 60)
    with store(tmp_path) as kept:
        model = Counted()
        batches = batches_of(model, [kept])
        batches.load(state)
        assert torch.equal(take(batches, 53), expected[7:])
        assert model.windows < TRAIN - 5, "what was there is not computed again"


KILLED = """
import sys
sys.path[:0] = [{tests!r}]
import numpy as np
from pathlib import Path
from test_activation_store import KEPT, activations, store
kept, order = store(Path(sys.argv[1])), np.random.default_rng(1).permutation(60)
x = activations()
print("begun", flush=True)
for number in np.tile(order, 1000):
    kept.add(np.array([number]), x[[number]])
    kept.commit()
"""


def test_after_a_kill_all_that_is_said_to_be_there_is_there(tmp_path):
    x = activations()
    for wait in (1, 7, 20, 40):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED.format(tests=str(Path(__file__).parent)), str(tmp_path / str(wait))],
            stdout=subprocess.PIPE,
        ) as worker:
            assert worker.stdout is not None
            worker.stdout.readline()
            while windows_there(KEPT.folder(tmp_path / str(wait)), KEPT) < wait:
                pass
            worker.send_signal(signal.SIGKILL)
        with store(tmp_path / str(wait)) as kept:
            there = np.flatnonzero(kept.has(np.arange(WINDOWS)))
            assert len(there) >= wait
            assert torch.equal(kept.read(there), x[torch.from_numpy(there)].bfloat16())


def test_bits_that_are_older_than_the_values_lose_the_latest_windows_only(tmp_path):
    folder = KEPT.folder(tmp_path)
    with store(tmp_path) as kept:
        kept.add(np.arange(10), activations(10))
        kept.commit()
        old = (folder / BITS).read_bytes()
        kept.add(np.arange(10, 20), activations(10, seed=1))
        kept.commit()
    (folder / BITS).write_bytes(old)
    with store(tmp_path) as kept:
        assert np.flatnonzero(kept.has(np.arange(WINDOWS))).tolist() == list(range(10))
        assert torch.equal(kept.read(np.arange(10)), activations(10).bfloat16())


def cut_values(folder: Path) -> None:
    os.truncate(folder / VALUES, 100)


def foreign_manifest(folder: Path) -> None:
    about = json.loads((folder / MANIFEST).read_text())
    about["belongs_to"]["model"] = "another"
    (folder / MANIFEST).write_text(json.dumps(about))


@pytest.mark.parametrize(
    "damage",
    [
        cut_values,
        foreign_manifest,
        lambda folder: (folder / MANIFEST).write_text("{"),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / BITS).write_bytes(b"\xff"),
        lambda folder: (folder / BITS).unlink(),
        lambda folder: (folder / VALUES).unlink(),
    ],
    ids=["values cut", "of another model", "no JSON", "no manifest", "bits cut", "no bits", "no values"],
)
def test_what_is_damaged_or_of_something_else_is_made_anew(tmp_path, damage, caplog):
    with store(tmp_path) as kept:
        kept.add(np.arange(WINDOWS), activations())
        kept.commit()
    damage(KEPT.folder(tmp_path))
    assert windows_there(KEPT.folder(tmp_path), KEPT) == 0
    with store(tmp_path) as kept:
        assert kept.windows_there == 0
        assert "made anew" in caplog.text
        kept.add(np.array([3]), activations(1))
        kept.commit()
        assert torch.equal(kept.read(np.array([3])), activations(1).bfloat16())
    assert windows_there(KEPT.folder(tmp_path), KEPT) == 1


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path):
    with store(tmp_path) as kept:
        kept.add(np.arange(WINDOWS), activations())
        kept.commit()
        cut_values(KEPT.folder(tmp_path))
        with pytest.raises(OSError, match="is shorter than it was"):
            kept.read(np.array([WINDOWS - 1]))


def test_a_second_run_at_the_same_time_reads_what_was_there_and_keeps_nothing(tmp_path, caplog):
    with store(tmp_path) as writer:
        writer.add(np.arange(20), activations(20))
        writer.commit()
        with store(tmp_path) as reader:
            assert "another training writes" in caplog.text
            assert (writer.writable, reader.writable) == (True, False)
            assert reader.windows_there == 20
            x = activations(40, seed=2)
            assert torch.equal(reader.add(np.arange(20, 60), x), x.bfloat16())
            reader.commit()
            assert reader.windows_there == writer.windows_there == 20
            expected = take(batches_of(random_model))
        assert windows_there(KEPT.folder(tmp_path), KEPT) == 20
    with store(tmp_path / "new") as writer, store(tmp_path / "new") as reader:
        assert torch.equal(take(batches_of(random_model, [reader])), expected)
        assert torch.equal(take(batches_of(random_model, [writer])), expected)
    with store(tmp_path) as kept:
        assert kept.writable, "the lock went with the other"


def test_a_full_disk_is_said_before_anything_is_written(tmp_path):
    asked = []

    def no_space(folder: Path, needed: int) -> None:
        asked.append((folder, needed))
        raise OSError(errno.ENOSPC, "the disk is full")

    with store(tmp_path) as kept:
        kept.add(np.arange(5), activations(5))
        kept.commit()
    with store(tmp_path, require_space=no_space) as kept:
        with pytest.raises(OSError, match="the disk is full"):
            kept.add(np.arange(5, 20), activations(15))
        kept.commit()
        assert asked == [(KEPT.folder(tmp_path), 15 * KEPT.window_bytes)]
        assert kept.windows_there == 5
        assert torch.equal(kept.read(np.arange(5)), activations(5).bfloat16())


def test_a_disk_that_is_full_in_the_middle_of_a_write_leaves_what_was_committed(tmp_path):
    """A limit on the size of files fails a write half way, as a full disk does."""
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    with store(tmp_path) as kept:
        kept.add(np.arange(5), activations(5))
        kept.commit()
        batches = batches_of(random_model, [kept])
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (KEPT.window_bytes * 30 + 17, limits[1]))
            with pytest.raises(OSError):
                take(batches)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert torch.equal(kept.read(np.arange(5)), activations(5).bfloat16())
        there = np.flatnonzero(kept.has(np.arange(5, WINDOWS))) + 5
        computed = random_model(torch.from_numpy(harvest().windows.rows(there)))
        assert torch.equal(kept.read(there), computed.bfloat16())
        assert kept.windows_there < TRAIN
        assert torch.isfinite(take(batches)).all(), "once there is room it goes on"


def test_what_tells_two_stores_apart(tmp_path):
    changes = [{"model": "n"}, {"precision": "bf16"}, {"tokenization": "u"}, {"hook": "h"}, {"form": "int8"}]
    changes += [{"windows": 61}, {"context": 9}, {"width": 5}]
    assert len({KEPT.key, *(replace(KEPT, **change).key for change in changes)}) == 1 + len(changes)
    assert KEPT.key == replace(KEPT).key
    assert KEPT.folder(tmp_path).parent == tmp_path


def test_a_model_is_another_when_its_weights_or_its_config_are(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"123")
    keys = [model_key(folder), model_key(folder)]
    (folder / "model.safetensors").write_bytes(b"1234")
    keys.append(model_key(folder))
    (folder / "config.json").write_text('{"a": 1}')
    keys.append(model_key(folder))
    assert (keys[0] == keys[1], len(set(keys))) == (True, 3)


def test_a_tokenization_of_the_same_text_under_another_name_is_the_same(tmp_path):
    def key(name, **changes):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        facts = {"name": name, "context": 8, "train_windows": 50, "held_out_windows": 10, "fingerprint": "f"}
        (folder / "tokenization.json").write_text(json.dumps({**facts, **changes}))
        (folder / "tokens.bin").write_bytes(b"12345678")
        return tokenization_key(folder)

    assert key("a") == key("b")
    assert len({key("a"), key("a", fingerprint="g"), key("a", train_windows=49), key("a", fingerprint=None)}) == 4
    assert key("a", fingerprint=None) != key("b", fingerprint=None), "of an older version: no fingerprint"
