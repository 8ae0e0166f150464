"""The page in a real Chromium, as quick and as light as it is on this machine: ``python bench/web.py``; 12 minutes.

First load: a new browser context for each, from the start of navigation until the first panel's heading is drawn and
its button has opened a dialog. Scrolling: a list of 131,072 features, by wheel and by jumps; frames as the page counts
them, beside those of the same page at rest. Training: ten metrics a second, the run's own page open; processor time of
the renderer, and every half minute the heap after a collection, nodes and listeners.

    python bench/web.py --minutes 1 --features 20000     a try
    python bench/web.py --only training --json           one part, as JSON
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chromium import FRAMES, INTERACTIVE, LOADED, SCROLLER, Looking
from features import Daemon, add_labels, build
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browsing import CHROMIUM, call, training
from studio import running

PARTS = ("load", "scroll", "training")
GOALS = {"interactive_ms": 500, "frame_ms": 50, "cpu_share": 0.15}
EVERY_S = 30.0


def first_load(browser: Any, url: str, loads: int) -> dict[str, Any]:
    drawn, answered = [], []
    for _ in range(loads):
        with Looking(browser, url) as one:
            one.page.add_init_script(INTERACTIVE)
            one.go("datasets")
            times = one.page.evaluate("interactive")
            drawn.append(times[0])
            answered.append(times[1])
            loaded, origins, said = one.page.evaluate(LOADED), one.origins, one.said
    files = [size for _, path, size in loaded if not path.startswith("/api/")]
    asked = [size for _, path, size in loaded if path.startswith("/api/")]
    return {
        "loads": loads, "drawn_ms": statistics.median(drawn), "interactive_ms": statistics.median(answered),
        "interactive_worst_ms": max(answered), "files": len(files), "file_bytes": sum(files),
        "api_requests": len(asked), "api_bytes": sum(asked), "origins": sorted(origins), "errors": said,
    }  # fmt: skip


def scrolled(browser: Any, url: str, features: int, seconds: float) -> dict[str, Any]:
    with Looking(browser, url) as one:
        one.go("features/wide")
        one.page.get_by_role("row").nth(5).wait_for()
        box = one.page.evaluate_handle(SCROLLER).as_element()
        one.page.evaluate(FRAMES)
        one.page.wait_for_timeout(1000)
        one.page.evaluate("seen()")
        one.page.wait_for_timeout(3000)
        found: dict[str, Any] = {"features": features, "at_rest": frames(one.page.evaluate("seen()"))}
        heaps = [one.heap_mb()]
        for how, act in (("wheel", wheel), ("jumps", jumps)):
            one.page.evaluate("seen()")
            act(one.page, box, seconds / 2)
            found[how] = frames(one.page.evaluate("seen()"))
            heaps.append(one.heap_mb())
        jumps(one.page, box, seconds / 2)
        heaps.append(one.heap_mb())
        return {**found, "heap_mb": heaps, "nodes": one.metrics()["Nodes"], "errors": one.said}


def wheel(page: Any, box: Any, seconds: float) -> None:
    """As a hand does: notches close together, for a second down and for half a second up."""
    place = box.bounding_box()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        page.mouse.wheel(0, -360 if left % 1.5 < 0.5 else 360)
        page.wait_for_timeout(20)


def jumps(page: Any, box: Any, seconds: float) -> None:
    """Anywhere in the list, five times a second."""
    chance, ends = random.Random(0), time.monotonic() + seconds
    while time.monotonic() < ends:
        box.evaluate("(box, part) => { box.scrollTop = part * box.scrollHeight; }", chance.random())
        page.wait_for_timeout(200)


def frames(seen: dict[str, list[float]]) -> dict[str, float]:
    times = sorted(seen["frames"])
    over = sum(one > GOALS["frame_ms"] for one in times)
    tasks = seen["tasks"]
    return {
        "frames": len(times), "median_ms": statistics.median(times), "p99_ms": times[int(0.99 * (len(times) - 1))],
        "longest_ms": times[-1], "over_50_ms": over, "long_tasks": len(tasks), "longest_task_ms": max(tasks, default=0),
    }  # fmt: skip


def trained(browser: Any, minutes: float) -> dict[str, Any]:
    with contextlib.ExitStack() as opened:
        data = opened.enter_context(tempfile.TemporaryDirectory())
        url = opened.enter_context(running(Path(data) / "data", "fast_metrics_worker.py"))
        job = begun(url, int(minutes * 600) + 300)
        one = opened.enter_context(Looking(browser, url))
        one.go(f"training/{job}")
        one.page.get_by_role("figure").first.wait_for()
        one.page.wait_for_timeout(5000)
        before, begun_at = step(url, job), time.monotonic()
        samples = list(sampled(one, minutes * 60))
        rate = (step(url, job) - before) / (time.monotonic() - begun_at)
        return {"minutes": minutes, "metrics_per_s": rate, "samples": samples, "errors": one.said, **summed(samples)}


def begun(url: str, steps: int) -> int:
    made = training(url, "few")  # with what it needs
    spec = call(url, f"/api/jobs/{made}")["spec"]
    call(url, f"/api/jobs/{made}/stop", {})
    return int(call(url, "/api/jobs", {"spec": {**spec, "name": "fast", "steps": steps}})["id"])


def step(url: str, job: int) -> int:
    found = call(url, f"/api/jobs/{job}")
    return int(found["progress"]["done"] / found["spec"]["batch_tokens"])


def sampled(one: Looking, seconds: float) -> Iterator[dict[str, float]]:
    """Every half minute; the collections of garbage themselves are left out of the processor's time."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0.5:
        before, measured, begun = one.processes(), one.metrics(), time.monotonic()
        one.page.wait_for_timeout(1000 * min(EVERY_S, left))
        after, now, took = one.processes(), one.metrics(), time.monotonic() - begun
        yield {
            "renderer_share": (after["renderer"] - before["renderer"]) / took,
            "drawing_share": (after["gpu"] - before["gpu"]) / took,
            "task_share": (now["TaskDuration"] - measured["TaskDuration"]) / took,
            "heap_mb": one.heap_mb(), "nodes": now["Nodes"], "listeners": now["JSEventListeners"], "seconds": took,
        }  # fmt: skip


def summed(samples: list[dict[str, float]]) -> dict[str, float]:
    first, last = samples[0], samples[-1]
    shares, sizes = ("renderer_share", "task_share", "drawing_share"), ("heap_mb", "nodes", "listeners")
    return {
        **{name: statistics.fmean(one[name] for one in samples) for name in shares},
        **{f"{name}_last": last[name] for name in (*shares, *sizes)},
        **{f"{name}_first": first[name] for name in sizes},
    }


@contextlib.contextmanager
def wide(features: int, labels: int) -> Iterator[str]:
    """The URL of a studio with an SAE of so many features."""
    with tempfile.TemporaryDirectory() as data:
        build(Path(data) / "features" / "wide" / "1", features, 2)
        sae = Path(data) / "saes" / "wide"
        sae.mkdir(parents=True)
        (sae / "recipe.json").write_text(json.dumps({"width": features}))
        daemon = Daemon(Path(data))
        try:
            add_labels(daemon, features, labels)
            yield f"http://127.0.0.1:{daemon.port}"
        finally:
            daemon.end()


def row(what: str, value: str, goal: str = "", met: bool | None = None) -> None:
    mark = "" if met is None else "  met" if met else "  MISSED"
    print(f"  {what:34} {value:44} {goal}{mark}")


def tell_load(found: dict[str, Any]) -> None:
    print(f"first load, median of {found['loads']} new contexts")
    row("interactive", f"{found['interactive_ms']:.0f} ms (worst {found['interactive_worst_ms']:.0f})",
        "< 500 ms", found["interactive_ms"] < GOALS["interactive_ms"])  # fmt: skip
    row("first panel drawn", f"{found['drawn_ms']:.0f} ms")
    row("files", f"{found['files']}, {found['file_bytes'] / 1e3:.0f} kB over the wire")
    row("answers of the API", f"{found['api_requests']}, {found['api_bytes'] / 1e3:.0f} kB")
    row("origins", ", ".join(found["origins"]), "1", len(found["origins"]) == 1)


def tell_scroll(found: dict[str, Any]) -> None:
    print(f"scrolling {found['features']:,} features")
    for how in ("at_rest", "wheel", "jumps"):
        one = found[how]
        goal = ("longest < 50 ms", one["longest_ms"] < GOALS["frame_ms"]) if how != "at_rest" else ()
        times = f"longest {one['longest_ms']:.0f} ms, p99 {one['p99_ms']:.0f}, median {one['median_ms']:.1f}"
        row(how.replace("_", " "), times, *goal)
        tasks = f"{one['long_tasks']} long tasks, {one['longest_task_ms']:.0f} ms"
        row("", f"{one['over_50_ms']} of {one['frames']} frames over 50 ms; {tasks}")
    row("heap before, after each, once more", ", ".join(f"{mb:.1f}" for mb in found["heap_mb"]) + " MB")
    row("nodes", f"{found['nodes']:.0f}")


def tell_training(found: dict[str, Any]) -> None:
    print(f"a training at {found['metrics_per_s']:.0f} metrics a second, {found['minutes']:g} minutes")
    row("renderer", f"{found['renderer_share']:.1%} of a core (at the end {found['renderer_share_last']:.1%})",
        "< 15 %", found["renderer_share"] < GOALS["cpu_share"])  # fmt: skip
    row("of it tasks of the page", f"{found['task_share']:.1%}")
    row("the process that draws", f"{found['drawing_share']:.1%}")
    for name, unit in (("heap_mb", " MB"), ("nodes", ""), ("listeners", "")):
        row(name.partition("_")[0], f"{found[f'{name}_first']:.5g} → {found[f'{name}_last']:.5g}{unit}")
    row("heap each half minute", ", ".join(f"{one['heap_mb']:.1f}" for one in found["samples"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--loads", type=int, default=9)
    parser.add_argument("--features", type=int, default=131_072)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of scrolling")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the training")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        if {"load", "scroll"} & set(asked.only):
            with wide(asked.features, asked.labels) as url:
                if "load" in asked.only:
                    found["load"] = first_load(browser, url, asked.loads)
                if "scroll" in asked.only:
                    found["scroll"] = scrolled(browser, url, asked.features, asked.seconds)
        if "training" in asked.only:
            found["training"] = trained(browser, asked.minutes)
        browser.close()
    tell = {"load": tell_load, "scroll": tell_scroll, "training": tell_training}
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for part, figures in found.items():
        tell[part](figures)
    for part in [part for part, figures in found.items() if figures["errors"]]:
        print(f"the page complained ({part}): {found[part]['errors']}")


if __name__ == "__main__":
    main()
