"""How features look: examples cut around their peaks, shades, histograms, and foreign text that stays text."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import code_pages
import pytest
from feature_stub import NO_MARKS, Shelf, in_front, score
from hypothesis import given
from hypothesis import strategies as st
from mistudio import feature_page, histograms, inspected
from mistudio.examples import in_context, in_line, parted, shade, whole
from mistudio.output import Canvas, Line
from mistudio.visible import cut, cut_before, escaped_json, visible, width
from studio import running

from mistudiod.pages import EDGES

MISTUDIO = (sys.executable, "-m", "mistudio.cli")
PLAIN, NARROW, COLOURED = Canvas(None, False), Canvas(60, False), Canvas(100, True)
NO_LABEL = {"sae": "made", "label": None, "score": None, "marks": NO_MARKS}
anything = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z", "C"]), max_size=40)


def text_of(line: Line) -> str:
    return "".join(text for text, _ in line)


def example(texts: list[str], peak: int, values: list[float] | None = None) -> dict[str, Any]:
    return {"texts": texts, "peak": peak, "activations": values or [float(n == peak) for n in range(len(texts))]}


# -- foreign text ----------------------------------------------------------------------------------------------------


@given(anything)
def test_visible_text_is_one_line_with_nothing_that_steers_or_hides(text: str) -> None:
    shown = visible(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\r\nd", "a↵b→c↵d"),
        ("\x1b[31m\x9b2J\r", r"\x1b[31m\x9b2J\r"),
        ("\u202egnp\u2066\u200b\ufeff\u00ad\u2028", r"\u202egnp\u2066\u200b\ufeff\xad\u2028"),
        ("\ud800\ufffd\U000e0041", r"\ud800�\U000e0041"),
        ("[red]x[/red] <script>", "[red]x[/red] <script>"),
        ("日本 é e\u0301 👍", "日本 é e\u0301 👍"),
    ],
)
def test_what_hides_is_shown_as_its_code(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_json_that_is_printed_is_the_same_value() -> None:
    assert escaped_json('"\x7f\x9b\u202e\ud800x"') == r'"\u007f\u009b\u202e\ud800x"'


@given(anything.map(visible), st.integers(1, 30))
def test_what_is_cut_fits_and_keeps_its_beginning_or_its_end(text: str, cells: int) -> None:
    for shown in (cut(text, cells), cut_before(text, cells)):
        assert width(shown) <= cells
    assert text.startswith(cut(text, cells).removesuffix("…"))
    assert text.endswith(cut_before(text, cells).removeprefix("…"))


# -- examples --------------------------------------------------------------------------------------------------------


@given(st.lists(anything, min_size=1, max_size=30), st.data(), st.integers(30, 120), st.booleans())
def test_an_example_fits_its_line_and_its_peak_is_always_seen(
    texts: list[str], data: st.DataObject, cells: int, colours: bool
) -> None:
    peak = data.draw(st.integers(0, len(texts) - 1))
    one, left = example(texts, peak), int(cells * 0.6)
    line = in_line(one, 1.0, Canvas(cells, colours), cells, left)
    assert width(text_of(line)) <= cells
    shown = text_of(parted(one, 1.0)[1])[:5]
    if colours:
        at = next(n for n, (_, style) in enumerate(line) if "underline" in style)
        assert width(text_of(line[:at])) == left and line[at][0].startswith(shown[:1])
    else:
        assert width(text_of(line).partition("【")[0]) == left
    assert width(in_context(one, cells)) <= cells
    assert f"【{shown}" in in_context(one, cells) and f"【{shown}" in in_context(one) and f"【{shown}" in whole(one)


def test_whitespace_is_seen_and_half_a_character_stands_with_its_other_half() -> None:
    assert whole(example([" a", "\n", "\t", "b"], 1)) == " a【↵】→b"
    assert whole(example(["x", "", "", "日", "y"], 1)) == "x【日】y"
    assert whole(example(["x", ""], 1)) == "x【】"


def test_shades_tell_how_strong_a_token_is() -> None:
    styles = [shade(value, 10.0) for value in (0.0, 0.1, 3.0, 5.0, 7.0, 10.0)]
    assert styles[0] == "" and len(set(styles)) == 6
    assert shade(1.0, 0.0) == ""


# -- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("canvas", [NARROW, COLOURED])
@pytest.mark.parametrize("index", [*code_pages.WORDS, code_pages.DEAD])
def test_no_line_of_a_page_is_longer_than_the_terminal_is_wide(index: int, canvas: Canvas) -> None:
    label = {"id": 1, "text": "imports " * 20, "explanation": "x" * 300, "provider": "person", "confidence": None}
    known = {"label": label, "score": {"value": 0.8, "scores": [score(judge="x" * 90), score()]}}
    page = {**code_pages.page(index), **NO_LABEL, **known}
    lines = list(feature_page.lines(page, {12: "日本語" * 40}, canvas))
    assert max(width(text_of(line)) for line in lines) <= (canvas.width or 0)
    assert sum("underline" in style or "【" in text for line in lines for text, style in line) == len(page["examples"])


def test_examples_are_grouped_from_the_strongest_to_near_misses() -> None:
    page = {**code_pages.page(7), **NO_LABEL}
    titles = [text_of(line) for line in feature_page.lines(page, {}, COLOURED) if line and line[0][1] == "bold"]
    kinds = re.findall("STRONGEST|FROM|RANDOM|NEAR", " ".join(titles))
    assert kinds == ["STRONGEST", *["FROM"] * 5, "RANDOM", "NEAR"]
    lowest, *_ = (float(title.split()[1]) for title in reversed(titles) if title.startswith("FROM"))
    assert lowest == 0


def test_a_hostile_page_is_only_text() -> None:
    page = {**code_pages.hostile_page(), **NO_LABEL}
    for canvas in (PLAIN, NARROW, COLOURED):
        for line in feature_page.lines(page, {}, canvas):
            assert text_of(line) == visible(text_of(line))


def test_a_text_that_was_read_is_coloured_by_what_is_strongest_on_each_token() -> None:
    tokens = [
        {"text": "<bos>", "special": True, "features": [{"index": 1, "value": 9.0}]},
        {"text": "import\n", "special": False, "features": [{"index": 7, "value": 10.0}]},
        {"text": "os", "special": False, "features": []},
    ]
    result = {"tokens": tokens, "pooled": [{"index": 7, "max": 10.0, "tokens": 1, "peak": 1}]}
    first, second, *_ = inspected.lines(result, {}, COLOURED)
    assert first == [("<bos>", "dim"), ("import", shade(10, 10)), ("↵", "dim")]
    assert second == [("", shade(10, 10)), ("os", "")]
    assert list(inspected.lines({"tokens": [], "pooled": []}, {}, PLAIN))


# -- histograms ------------------------------------------------------------------------------------------------------


def test_a_histogram_is_cut_to_what_it_has_and_tells_where_that_is() -> None:
    counts = [0] * 64
    counts[32:36] = [24, 0, 1, 12]  # from 1 to 4
    assert histograms.drawn(counts, EDGES) == ["██", "██    ▄▄", "██  ▁▁██", "▔▔▔▔▔▔▔▔", "1   2   4"]
    assert histograms.drawn([0] * 64, EDGES) == []


@given(st.lists(st.integers(0, 10**9), min_size=64, max_size=64), st.integers(70, 200))
def test_whatever_there_is_in_a_histogram_is_seen(counts: list[int], room: int) -> None:
    lines = histograms.drawn(counts, EDGES, room)
    if lines:
        *bars, line, axis = lines
        assert len(line) <= room and len(axis) <= len(line) + 12
        assert all(len(bar) <= len(line) for bar in bars)
        filled = sum(count > 0 for count in counts)
        assert sum(c != " " for c in bars[-1]) in (filled, 2 * filled)


# -- a real terminal -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    shelf = Shelf({"made"})
    shelf.label(7, "imports of modules at the beginning of a line, and of what is in them", scores=[score()])
    with running(tmp_path_factory.mktemp("studio") / "data") as url, in_front(url, shelf) as front:
        yield front


def at_terminal(studio: str, *args: str, command: Sequence[str] = MISTUDIO, **environ: str) -> str:
    ours, its = pty.openpty()
    known = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    known |= {"MISTUDIO_HOST": studio, "TERM": "xterm-256color", "COLUMNS": "90", **environ}
    process = subprocess.Popen([*command, *args], stdout=its, stderr=its, env=known)
    os.close(its)
    shown = b""
    try:
        while chunk := os.read(ours, 65_536):
            shown += chunk
    except OSError:
        pass  # EIO: the other end is closed
    os.close(ours)
    assert process.wait(60) == 0, shown
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_shows_colours_and_no_line_that_wraps(studio: str, tmp_path: Path) -> None:
    shown = at_terminal(studio, "feature", "show", "made", "7")
    assert "\x1b[" in shown and "【" not in shown
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert max(map(width, lines)) <= 90
    peaks = [line.index("import") for line in lines[lines.index("STRONGEST, each of another window") + 1 :][:3]]
    assert len({*peaks}) <= 2  # ' import' begins with its space
    assert not re.search(r"\x1b(?!\[[\d;]*m)", shown)


def test_a_terminal_without_colours_has_brackets(studio: str) -> None:
    shown = at_terminal(studio, "feature", "show", "made", "7", NO_COLOR="1")
    assert "\x1b" not in shown and shown.count("【") == 40
    assert max(map(width, shown.splitlines())) <= 90


@pytest.mark.parametrize("columns", ["80", "100", "160"])
def test_in_a_list_too_every_peak_is_seen_whatever_the_width(studio: str, columns: str) -> None:
    listed = at_terminal(studio, "feature", "list", "made", "--filter", "alive", COLUMNS=columns)
    assert max(map(width, listed.splitlines())) <= int(columns)
    peaks = [found.strip() for line in listed.splitlines()[1:] for found in re.findall("【(.*)】", line)]
    assert peaks == ["import", "self", "def"]


def test_what_a_worker_says_of_itself_steers_no_terminal(studio: str) -> None:
    code = (
        "from mistudio.drawing import drawn\n"
        "with drawn() as drawing:\n"
        "    for draw in (drawing.note, lambda text: drawing.line(text, 0.5, True, [text])):\n"
        "        draw('\\x1b]0;owned\\x07')"
    )
    shown = at_terminal(studio, command=(sys.executable, "-c", code))
    assert "\x1b]0" not in shown and shown.count(r"\x1b]0;owned\x07") >= 3
