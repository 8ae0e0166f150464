"""Rows 16 and 17 of the incident table: text of a dataset, of a model, of an LLM or of another person that a browser
could take for markup, in every panel of the page.

Whatever the studio answers with a text in it is rewritten on its way to the browser, so that every text of every panel
would run a script if it were taken for more than a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import EXPECTED, IN_A_BROWSER, OpenPage, call, dataset, expect, training, until
from many_features import SAE, make_many
from studio import running

pytestmark = IN_A_BROWSER
MARK = "owned()"
# Each would run if it were an element's content, an attribute's, a script's, a link or a template.
HOSTILE = (
    f"<img src=x onerror={MARK}>\"><svg onload={MARK}>'><script>{MARK}</script><iframe srcdoc='<script>parent.{MARK}"
    f"</script>'></iframe><a href=javascript:{MARK}>a</a></textarea></title></style>${{{MARK}}}{{{{{MARK}}}}}&lt;b"
)
LINK = f"javascript:{MARK}//"
# Texts that somebody else has written; names, kinds and numbers are the studio's own, and held to their forms.
TEXTS = {
    "text", "note", "message", "explanation", "source", "description", "licence", "prompt", "label", "content", "log",
    "help", "remedy", "reason", "why", "token", "before", "after", "page", "lost", "formula", "holds", "verdict",
    "family", "machine", "title", "words", "hint", "template", "dataset_path", "template_text", "split", "config",
}  # fmt: skip
LISTS = {"tokens", "texts", "context", "lists", "warnings", "refs", "choices"}  # of texts
PLACES = (
    "datasets", "datasets/stories", "models", "models/pico", "saes", f"saes/{SAE}", "training", "training/TRAINED",
    f"features/{SAE}", f"features/{SAE}/1", "steering", f"steering/{SAE}", "system", "jobs", "jobs/FAILED",
)  # fmt: skip
BARE = {"datasets/stories", "models", "models/pico", "saes", "training"}  # there is nothing but names
WATCH = """
window.owned = () => { window.ran = (window.ran || 0) + 1; };
window.violated = [];
addEventListener("securitypolicyviolation", (event) => violated.push(`${event.violatedDirective} ${event.sample}`));
"""
FOUND = """() => ({
  ran: window.ran || 0, violated: window.violated, title: document.title,
  elements: [...document.querySelectorAll("img[src=x], svg[onload], iframe, main script, [onerror], [srcdoc]")]
    .map((one) => one.outerHTML.slice(0, 200)),
  links: [...document.querySelectorAll("[href], [src], [action], [formaction], [*|href]")]
    .flatMap((one) => ["href", "src", "action", "formaction", "xlink:href"].map((name) => one.getAttribute(name)))
    .filter((to) => to && /^\\s*(javascript|data:text|vbscript)/i.test(to)),
  shown: document.body.innerText.split("onerror=").length - 1,
})"""


def hostile(found: Any, key: str = "") -> Any:
    """The same answer with markup in every text of it."""
    if isinstance(found, dict):
        return {name: hostile(value, name) for name, value in found.items()}
    if isinstance(found, list):
        return [hostile(one, key if key in LISTS else "") for one in found]
    if isinstance(found, str) and key in TEXTS | LISTS:
        return LINK if key == "page" else f"{found} {HOSTILE}"
    return found


def rewritten(route: Any) -> None:
    answer = route.fetch()
    if "json" not in answer.headers.get("content-type", ""):
        route.fulfill(response=answer)
        return
    route.fulfill(response=answer, body=json.dumps(hostile(answer.json())))


@pytest.fixture
def spoilt(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A studio to which people and machines have said such things really, and the numbers of its jobs."""
    data = make_many(tmp_path / "data", 30)
    about = {"model": {"name": "pico"}, "resolved": {"precision": "fp32"}, "width": 30, "sae_sha256": "a" * 64}
    (data / "saes" / SAE / "recipe.json").write_text(json.dumps(about))
    with running(data, "fake_worker.py") as url:
        trained = training(url, "train")
        until(url, trained, "running")
        at = f"/api/saes/{SAE}/features/1"
        call(url, f"{at}/label", {"text": HOSTILE[:200], "explanation": HOSTILE}, "PUT")
        call(url, at, {"note": HOSTILE, "starred": True}, "PATCH")
        call(url, f"/api/saes/{SAE}", {"note": HOSTILE}, "PATCH")
        call(url, "/api/profiles", {"name": "p", "steering": [{"feature": 1, "sae": SAE}], "note": HOSTILE})
        failed = dataset(url, "fail", f"/text/{HOSTILE}")
        until(url, failed, "failed")
        yield url, {"TRAINED": str(trained), "FAILED": str(failed)}


def test_no_text_of_anybody_is_taken_for_markup_in_any_panel(
    spoilt: tuple[str, dict[str, str]], open_page: OpenPage
) -> None:
    url, numbers = spoilt
    page = open_page(url, "about:blank", expected=EXPECTED)
    page.add_init_script(WATCH)
    policies: dict[str | None, str] = {}
    page.on("response", lambda one: policies.setdefault(one.headers.get("content-security-policy"), one.url))
    shown: dict[str, int] = {}
    for as_it_is in (True, False):
        if not as_it_is:
            page.route(re.compile(r"/api/(?!events)"), rewritten)
        page.reload()
        for place in PLACES:
            page.goto(f"{url}/#/{re.sub('TRAINED|FAILED', lambda name: numbers[name[0]], place)}")
            expect(page.get_by_role("main").get_by_role("heading", level=2).first).to_be_visible()
            for _ in range(100):  # until what is to be seen there has come
                page.wait_for_timeout(300)
                page.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")
                page.wait_for_timeout(100)
                found = page.evaluate(FOUND)
                assert (found["ran"], found["violated"], found["elements"], found["links"]) == (0, [], [], []), place
                if as_it_is or found["shown"] or place in BARE:
                    break
            shown[place] = shown.get(place, 0) + found["shown"]
    assert {place for place, times in shown.items() if not times} <= BARE
    assert len(policies) == 1 and "script-src 'self'" in str(next(iter(policies))), policies
