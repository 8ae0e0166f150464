"""The page that a run of steering is exported as: one file that does nothing and shows everything."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from html.parser import HTMLParser
from typing import Any

import pytest
from steered_runs import SHA, result, spec, steered, text

from mistudiod.specs import Steer
from mistudiod.steering_page import render, shown

HOSTILE = (
    "</style></p><script>alert(1)</script><img src=x onerror=alert(1)>\"' & \x1b]0;x\x07\x00\x9b \u202egnp\u2066 \ud800"
)


class Seen(HTMLParser):
    """The elements of a page, with what is in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data)


def page(given: dict[str, Any], labels: list[dict[str, Any]] | None = None, **fields: Any) -> str:
    asked = Steer.model_validate(fields.pop("spec", spec())).model_dump()
    about = {"id": 12, "sae": "ok", "model": "tiny", "job": None, "created_at": "2026-01-02T03:04:05.000Z"}
    return render({**about, "starred": True, "note": None, "spec": asked, "result": given, **fields}, labels or [])


def test_the_page_has_texts_labels_formulas_measures_settings_and_hashes() -> None:
    labels = [{"sae": "ok", "feature": 7, "label": "snakes"}]
    found = page(result(), labels, note="for the talk")
    for words in (
        "Steering 12: ok on tiny", "2026-01-02T03:04:05.000Z", "starred", "for the talk", "Once upon", "snakes",
        "h += 2·4.5·d", "blocks.1.hook_resid_post", "KL, nats</dt><dd>0.5<", "50%", "12.5", "0.125",
        "mean 0.25, largest 1.5", "after the edit 3.5, 4", "fp32", "0.7", SHA, "b" * 64, "2.9",
    ):  # fmt: skip
        assert words in found, words
    assert "None" not in found and "model_sha256" not in found  # what is not known is not there
    seen = Seen(found)
    assert seen.open == []
    assert "".join(seen.text["mark"]).split() == ["python"] and "".join(seen.text["del"]).split() == ["there"]


def test_nothing_on_the_page_runs_or_comes_from_elsewhere() -> None:
    found = page(result())
    seen = Seen(found)
    assert {tag for tag, _ in seen.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "div", "span", "article"),
        *("table", "thead", "tbody", "tr", "th", "td", "code", "dl", "dt", "dd", "mark", "del", "i"),
    }
    assert {name for _, about in seen.tags for name in about} <= {
        *("lang", "charset", "http-equiv", "content", "name", "class", "title", "role", "aria-label", "dir"),
    }
    (style,) = re.findall(r"<style>(.*?)</style>", found, re.DOTALL)
    assert "url(" not in style and "@import" not in style
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(about["content"] for tag, about in seen.tags if "http-equiv" in about)
    assert policy == f"default-src 'none'; style-src 'sha256-{sha256}'"


def test_hostile_text_is_text_wherever_it_stands() -> None:
    hostile = text(0, HOSTILE, tokens=[HOSTILE], finish=HOSTILE)
    other = steered(0, HOSTILE + " x", tokens=[HOSTILE], kl_tokens=[0.5])
    other["no_effect"] = [{"sae": "ok", "feature": 7, "reason": "dead", "message": HOSTILE}]
    given = result([hostile], [other], device=HOSTILE)
    given["edits"][0] |= {"formula": HOSTILE, "hook": HOSTILE}
    given["made"] |= {"model_revision": HOSTILE, "sae_sha256": {HOSTILE: HOSTILE}}
    labels = [{"sae": "ok", "feature": 7, "label": HOSTILE}]
    found = page(given, labels, spec=spec(HOSTILE.replace("\ud800", "")), note=HOSTILE)
    plain, seen = Seen(page(result(), note="x")), Seen(found)
    assert {tag for tag, _ in seen.tags} <= {tag for tag, _ in plain.tags}
    assert {name for _, about in seen.tags for name in about} == {name for _, about in plain.tags for name in about}
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", found)
    assert shown("\x1b\u202e\x9b\x7f\ud800\n\té") == "␛⟨U+202E⟩⟨U+009B⟩⟨U+007F⟩\ufffd\n\té"
    assert found.encode()  # every character can be written


def test_each_token_has_a_bar_of_the_strip_that_says_its_kl() -> None:
    one = steered(0, "a b c d", kl_tokens=[0.0, 0.02, 0.5, 40.0])
    bars = [about for tag, about in Seen(page(result(others=[one]))).tags if tag == "i" and "title" in about]
    assert [bar["class"] for bar in bars] == ["k0", "k1", "k4", "k6"]
    assert [bar["title"] for bar in bars] == [" a: 0 nats", " b: 0.02 nats", " c: 0.5 nats", " d: 40 nats"]
    gap = page(result(others=[steered(0, "a b", kl_tokens=[None, 0.5])]))
    assert '<i class="" title=" a: not finite">' in gap and "0.5 nats at the most" in gap
    without = page(result(others=[steered(0, "a", kl=None, kl_tokens=None)]))
    assert 'title="' not in without and "KL, nats" not in without


def test_every_sample_has_its_baseline_beside_its_variants() -> None:
    baselines = [text(n, f"base {n}") for n in range(2)]
    others = [steered(n, f"other {n} {v}", v, v - 1.0) for n in range(2) for v in range(3)]
    found = page(result(baselines, others), spec=spec(samples=2, sweep=[-1, 0, 1]))
    seen = Seen(found)
    heads = [head for head in seen.text["h3"] if head.strip()]
    assert heads == ["Baseline", "−1 · 7", "0 · 7", "+1 · 7"] * 2
    assert "sample 2" in found and "<del>" not in found and "-1, 0, 1" in found


@pytest.mark.parametrize(("op", "strength", "says"), [("clamp", 1.5, "set to 1.5"), ("scale", 3, "times 3"),
                                                       ("ablate", 1, "ablated"), ("add", -2, "−2")])  # fmt: skip
def test_an_edit_is_said_in_words(op: str, strength: float, says: str) -> None:
    one = steered(0, "a")
    one["strengths"][0] |= {"op": op, "strength": strength}
    assert f"<h3>{says} · 7</h3>" in page(result(others=[one]))


def test_a_text_that_repeats_itself_four_thousand_times_takes_no_long_time() -> None:
    given = result([text(0, "the " * 4000)], [steered(0, "the cat " * 2000)])
    begun = time.process_time()
    page(given)
    assert time.process_time() - begun < 10
