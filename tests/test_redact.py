"""Redaction: what is taken out of logs, events and a worker's output, whatever the pieces it comes in."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_secrets import ODD, VALUE, ran

from mistudiod.paths import Paths
from mistudiod.redact import PROCESS, Filter, Redactor
from mistudiod.runner import read_tail
from mistudiod.worker.link import Link
from mistudiod.worker.redacted import RedactedFile


def test_a_link_gives_a_job_its_secrets_and_says_none_of_them(tmp_path: Path) -> None:
    read, write = os.pipe()
    PROCESS.know([ODD])
    link = Link(tmp_path, Paths(tmp_path), write, {"hf": ODD})
    assert link.secret("hf") == ODD and link.secret("openai") is None
    link.progress(f"get {ODD}", 1, 2)
    link.metric(1, {ODD: 1.0})
    link.result({ODD: [ODD]})
    link.failure("internal", f"refused {ODD}")
    link._pipe.close()  # type: ignore[union-attr]
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    assert ODD not in said and json.dumps(ODD)[1:-1] not in said and said.count("***") == 5
    assert [json.loads(line)["event"] for line in said.splitlines()] == ["progress", "metric", "result", "failure"]


def test_a_real_worker_says_and_prints_no_secret_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    secret = 'unlike any "pattern"'
    spec = {"kind": "add_model", "name": "m", "source": f"/no/{secret}"}
    (tmp_path / "spec.json").write_text(json.dumps({"job": 1, "data": str(tmp_path), "spec": spec}))
    handed, hand = os.pipe()
    os.write(hand, json.dumps({"hf": secret}).encode())
    os.close(hand)
    lifeline, mine = os.pipe()
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parent.parent)}
    worker = subprocess.run(
        [sys.executable, "-m", "mistudiod.worker", str(tmp_path)],
        env=environ | {"MISTUDIO_SECRETS_FD": str(handed)},
        stdin=lifeline, pass_fds=(handed,), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    for number in (handed, lifeline, mine):
        os.close(number)
    assert worker.returncode == 64, worker.stderr
    assert "/no/***" in worker.stderr  # what has no pipe for its events says them there
    assert "unlike" not in worker.stderr + worker.stdout


async def test_the_daemon_hides_what_a_careless_worker_says(tmp_path: Path) -> None:
    worker, events = await ran(tmp_path / "run", "leak-leakraw-silent", {"hf": ODD})
    ended = await worker.ended()
    assert ended.code == 70 and "***" in repr(events)
    for text in (repr(events), json.dumps(repr(events)), ended.tail):
        for form in (ODD, json.dumps(ODD)[1:-1], quote(ODD, safe="")):
            assert form not in text
    assert "a traceback with ***" in ended.tail and "*** in two pieces" in ended.tail and "by C code: ***" in ended.tail
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count(ODD) == 1  # what goes past Python's streams is hidden when the log is read


def test_known_values_are_hidden_in_every_form_and_short_ones_left() -> None:
    redactor = Redactor()
    redactor.know([ODD, "none", "longer-than-eight", "longer-than-eight-too"])
    for form in (ODD, json.dumps(ODD), quote(ODD), quote(ODD, safe="")):
        assert ODD not in redactor.hide_known(form) and "quoted" not in redactor.hide_known(form)
    assert redactor.hide("none of it") == "none of it"
    assert redactor.hide("x longer-than-eight-too x longer-than-eight") == "x *** x ***"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"token {VALUE}.", "token ***."),
        ("sk-proj-0123456789_abcdefgh", "***"),
        (f"mis_12_{'a-_9' * 11}", "***"),
        ("mis_12_cut", "***"),
        ("Authorization: Bearer abc.def=", "Authorization: Bearer ***"),
        ('{"authorization": "bearer abcdefgh"}', '{"authorization": "bearer ***"}'),
        ("task-0123456789-0123456789 on the disk-by-uuid-0123456789abcdef", None),
        ("hf_hub and the bearer of it, Bearer TOKEN", None),
        ("'blocks.3.hook_resid_post' of llama_mis_1", None),
    ],
)
def test_what_looks_like_a_secret_is_hidden_and_nothing_else(text: str, hidden: str | None) -> None:
    assert Redactor().hide(text) == (hidden or text)
    assert Redactor().hide_known(text) == text


SECRETS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=30)


@settings(deadline=None)
@given(
    SECRETS,
    st.lists(st.sampled_from(["word", " ", "\n", "\r", "secret", "hf_", "ä", "*", "begin"]), max_size=12),
    st.randoms(use_true_random=False),
)
def test_a_secret_written_in_pieces_is_hidden_and_all_else_arrives(secret: str, words: list[str], random) -> None:  # type: ignore[no-untyped-def]
    redactor = Redactor()
    redactor.know([secret])
    text = "".join({"secret": secret, "begin": secret[:5]}.get(word, word) for word in words)
    data, file = text.encode(), _Gathered()
    stream = RedactedFile(file, redactor)  # type: ignore[arg-type]
    while data:
        size = random.randint(1, len(data))
        assert stream.write(data[:size]) == size
        data = data[size:]
        if random.random() < 0.5:
            stream.flush()
        assert secret not in file.text
    stream.close()
    assert file.text == redactor.hide(text)


def test_a_long_line_without_end_is_not_gathered_for_ever() -> None:
    file, redactor = _Gathered(), Redactor()
    redactor.know([VALUE])
    stream = RedactedFile(file, redactor)  # type: ignore[arg-type]
    for _ in range(100):
        stream.write(b"x" * 4096)
    assert len(file.text) > 350_000
    stream.write(VALUE[:9].encode())
    stream.flush()
    stream.write(VALUE[9:].encode() + b"\n")
    assert VALUE[:9] not in file.text and file.text.endswith("***\n")


class _Gathered:
    """A file that takes a few bytes at a time, as a full pipe does."""

    def __init__(self) -> None:
        self._data = b""

    def write(self, data: memoryview) -> int:
        self._data += bytes(data[:7000])
        return min(len(data), 7000)

    @property
    def text(self) -> str:
        return self._data.decode(errors="replace")


def test_log_records_are_hidden_in_message_arguments_traceback_and_stack() -> None:
    redactor, written = Redactor(), io.StringIO()
    redactor.know([ODD])
    handler = logging.StreamHandler(written)
    handler.addFilter(Filter(redactor))
    log = logging.Logger("test")
    log.addHandler(handler)
    log.info(f"in the message {ODD}")
    log.info("as argument %s and %r, in a dict %s", ODD, ODD, {"key": ODD})
    log.info("by name %(key)s", {"key": ODD})
    log.info("stack", stack_info=True)
    log.info("%d does not fit", ODD)
    try:
        raise ValueError(f"raised with {ODD}")
    except ValueError:
        log.exception("failed")
    text = written.getvalue()
    assert ODD not in text and json.dumps(ODD)[1:-1] not in text
    assert "raised with ***" in text and "Traceback (most recent call last)" in text and "Stack (most" in text
    assert "does not fit (its arguments do not fit: TypeError)" in text


def test_a_tail_that_begins_in_the_middle_of_a_secret_shows_no_piece_of_it(tmp_path: Path) -> None:
    PROCESS.know([VALUE])
    log = tmp_path / "log.txt"
    log.write_text(f"{'x' * 5000}{VALUE}{'y' * 90}\n{'z' * 300}\n" * 20)
    for size in range(300, 460):
        tail = read_tail(log, size)
        assert len(tail) <= size
        assert not [i for i in range(len(VALUE) - 5) if VALUE[i : i + 6] in tail]
    log.write_text("short\n")
    assert read_tail(log) == "short\n"
    log.write_text(f"{'x' * 40_000}{VALUE}" * 3)  # no line has an end
    for size in (10_000, 50_000, 27_740, 27_715):
        assert not [i for i in range(len(VALUE) - 5) if VALUE[i : i + 6] in read_tail(log, size)]
