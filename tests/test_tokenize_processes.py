"""Tokenizing in several processes: the same bits as in one, in bounded memory, and ended with the worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_job import folders, run_job, start_job
from tiny_models import tiny_tokenizer

from mistudiod.engine.documents import Filters, Pieces
from mistudiod.worker import tokenize
from mistudiod.worker.link import Asked
from mistudiod.worker.tokenize_pieces import Batch, Encoding
from mistudiod.worker.tokenize_processes import in_order

TEXTS = [f"# file {i}\n" + "for name in names:\n    print(name, 'naïve')\n" * (i % 7) for i in range(300)]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(folder)
    return folder / "tokenizer.json"


def batch_of(texts: list[str], continues: list[bool] | None = None) -> Batch:
    return Batch(texts, continues or [False] * len(texts), [None] * len(texts))


def unchecked() -> None:
    pass


@pytest.fixture
def children() -> Callable[[], list[psutil.Process]]:
    """The processes that this one has started since; what other tests have left in it is none of ours."""
    before = set(psutil.Process().children())
    return lambda: [one for one in psutil.Process().children() if one not in before]


def whole(pieces: Iterator[Pieces]) -> Pieces:
    """All batches as one."""
    parts = list(pieces)
    lists = zip(*([getattr(part, name) for name in Pieces.__dataclass_fields__][1:] for part in parts), strict=True)
    tokens = np.concatenate([part.tokens for part in parts])
    return Pieces(tokens, *([one for part in column for one in part] for column in lists))


def same(a: Pieces, b: Pieces) -> bool:
    return np.array_equal(a.tokens, b.tokens) and all(
        getattr(a, name) == getattr(b, name) for name in list(Pieces.__dataclass_fields__)[1:]
    )


texts = st.lists(st.tuples(st.text(max_size=40), st.booleans()), min_size=1, max_size=5)
patterns = st.none() | st.sampled_from(["[a-z0-9]", "(?i)q", "."])


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(texts, min_size=1, max_size=20), st.none() | st.floats(0, 0.9), patterns, patterns)
def test_tokens_are_those_of_a_plain_reference(
    tokenizer_file: Path,
    batches: list[list[tuple[str, bool]]],
    max_unprintable: float | None,
    must: str | None,
    must_not: str | None,
) -> None:
    made = [batch_of([text for text, _ in batch], [more for _, more in batch]) for batch in batches]
    encoding = Encoding(tokenizer_file, max_unprintable, must, must_not)
    found = whole(in_order(iter(made), encoding, 1, unchecked))
    rows = [text for batch in made for text in batch.texts]
    plain = [tiny_tokenizer().encode(text, add_special_tokens=False) for text in rows]
    ends = np.cumsum(found.lengths).tolist()
    filters = Filters(max_unprintable=max_unprintable, must_match=must is not None)
    for i, end in enumerate(ends):
        seen = (found.chars[i], found.unprintable[i], found.matched[i], found.unwanted[i])
        if found.lengths[i] or filters.reason_in_text(*seen) is None:
            assert found.tokens[end - found.lengths[i] : end].tolist() == plain[i]
    for found_, pattern in ((found.matched, must), (found.unwanted, must_not)):
        if pattern is not None:
            assert found_ == [re.search(pattern, text) is not None for text in rows]
    assert found.chars == [len(text) for text in rows]
    assert found.text_bytes == [len(text.encode()) for text in rows]


@pytest.mark.parametrize("filters", [(), (0.01, "name", "(?i)FILE 1")])
def test_the_pieces_are_the_same_whatever_the_number_of_processes(tokenizer_file: Path, filters: Any) -> None:
    random = np.random.default_rng(0)
    batches = [
        batch_of(
            [text[int(random.integers(9)) :] for text in TEXTS[first : first + n]], (random.random(n) < 0.2).tolist()
        )
        for first, n in ((int(random.integers(200)), int(random.integers(1, 60))) for _ in range(60))
    ]
    encoding = Encoding(tokenizer_file, *filters)
    one, three = (whole(in_order(iter(batches), encoding, n, unchecked)) for n in (1, 3))
    assert same(one, three)


def test_a_job_writes_the_same_bits_with_one_process_and_with_several(
    tokenizer_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, written = studio(tmp_path, tokenizer_file, 1), []
    started = []
    monkeypatch.setattr(tokenize, "in_order", lambda *args: started.append(args[2]) or in_order(*args))
    monkeypatch.setattr(tokenize, "_PROCESS_BYTES", 1 << 10)
    for cores in (1, 3):
        monkeypatch.setattr(tokenize, "cpu_count", lambda root, cores=cores: cores)
        monkeypatch.setattr(tokenize, "_FORMAT", cores)  # else the second would share what the first has made
        run_job(data, "tokenize", dataset="d", model="m", name=f"t{cores}", context=32, shortest=20)
        written.append((data / f"tokens/t{cores}/tokens.bin").read_bytes())
    assert started == [1, 3]
    assert written[0] == written[1]


def test_no_more_batches_are_taken_than_are_under_way(
    tokenizer_file: Path, children: Callable[[], list[psutil.Process]]
) -> None:
    taken = 0

    def endless() -> Iterator[Batch]:
        nonlocal taken
        while True:
            taken += 1
            yield batch_of(TEXTS)

    with closing(in_order(endless(), Encoding(tokenizer_file), 2, unchecked)) as pieces:
        for given_ in range(1, 20):
            next(pieces)
            assert taken <= given_ + 8
    assert children() == []


def test_a_wish_to_end_is_heard_while_the_processes_work(
    tokenizer_file: Path, children: Callable[[], list[psutil.Process]]
) -> None:
    began = time.monotonic()

    def check() -> None:
        if time.monotonic() - began > 0.3:
            raise Asked("stop")

    slow = [batch_of(["ab" * 400_000])] * 1000
    with pytest.raises(Asked):
        list(in_order(iter(slow), Encoding(tokenizer_file), 2, check))
    assert time.monotonic() - began < 20
    assert children() == []


def test_a_process_that_is_killed_is_told_of_as_a_lack_of_memory(
    tokenizer_file: Path, children: Callable[[], list[psutil.Process]]
) -> None:
    def endless() -> Iterator[Batch]:
        while True:
            yield batch_of(TEXTS)

    with closing(in_order(endless(), Encoding(tokenizer_file), 2, unchecked)) as pieces:
        next(pieces)
        children()[0].kill()
        with pytest.raises(MemoryError, match="a tokenizing process was killed"):
            for _ in pieces:
                pass


# A whole worker


def studio(tmp_path: Path, tokenizer_file: Path, megabytes: int) -> Path:
    """With the dataset ``d`` of so much text and the model ``m``."""
    data = tmp_path / "data"
    (data / "models/m").mkdir(parents=True)
    model = f'{{"path": "{tokenizer_file.parent}", "vocab_size": 320, "context": 64}}'
    (data / "models/m/model.json").write_text(model)
    source = tmp_path / "text"
    source.mkdir()
    text = "".join(TEXTS)
    for i in range(4):
        (source / f"{i}.txt").write_text(text[i:] * (megabytes * 250_000 // len(text)))
    run_job(data, "add_dataset", source=str(source), name="d")
    return data


def working(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of a worker, once there are two and text is being written."""
    end = time.monotonic() + 120
    while len(found := psutil.Process(worker.pid).children()) < 2:
        assert worker.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.7)
    assert worker.poll() is None
    return found


@pytest.fixture
def busy(tmp_path: Path, tokenizer_file: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes], list[psutil.Process]]]:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: one process")
    data = studio(tmp_path, tokenizer_file, 12)
    with start_job(data, "tokenize", dataset="d", model="m", name="t", context=32) as worker:
        try:
            yield data, worker, working(worker)
        finally:
            worker.kill()


def gone(processes: list[psutil.Process], limit_s: float) -> bool:
    """Whether all of them end in time; one that nobody has reaped yet has ended."""
    end = time.monotonic() + limit_s
    while not all(ended(one) for one in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_stopped_job_ends_within_a_second_and_leaves_nothing(
    busy: tuple[Path, subprocess.Popen[bytes], list[psutil.Process]],
) -> None:
    data, worker, processes = busy
    assert worker.stdin is not None
    worker.stdin.write(b"stop\n")
    worker.stdin.flush()
    assert worker.wait(timeout=1) == 76
    assert gone(processes, 0.2)
    assert folders(data, "tokens") == []


def test_the_processes_end_with_a_worker_that_is_killed(
    busy: tuple[Path, subprocess.Popen[bytes], list[psutil.Process]],
) -> None:
    _, worker, processes = busy
    worker.send_signal(signal.SIGKILL)
    worker.wait(timeout=5)
    assert gone(processes, 1)


def test_the_processes_end_with_the_worker_when_its_daemon_is_gone(
    busy: tuple[Path, subprocess.Popen[bytes], list[psutil.Process]],
) -> None:
    _, worker, processes = busy
    assert worker.stdin is not None
    worker.stdin.close()
    worker.stdin = None
    assert worker.wait(timeout=2) == 75
    assert gone(processes, 1)
