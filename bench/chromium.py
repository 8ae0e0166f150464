"""A page in Chromium, and what Chromium knows of it: for ``bench/web.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Presses the button as soon as it is drawn, and tells when that was and when its dialog was open, in milliseconds since
# navigation began. (The page's policy forbids wait_for_function, which evaluates a text.)
INTERACTIVE = """
window.interactive = new Promise((tell) => {
  const look = () => {
    const button = [...document.querySelectorAll("main button")].find((one) => one.textContent === "Add dataset");
    if (!document.querySelector("main h2") || !button) return requestAnimationFrame(look);
    const drawn = performance.now();
    button.click();
    const answered = () => {
      if (document.querySelector("dialog[open]")) tell([drawn, performance.now()]);
      else requestAnimationFrame(answered);
    };
    requestAnimationFrame(answered);
  };
  requestAnimationFrame(look);
});
"""
LOADED = """() => ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
  .map((one) => [new URL(one.name).origin, new URL(one.name).pathname, one.transferSize])"""
# Counts frames from now on; `seen()` gives them and begins anew.
FRAMES = """() => {
  let [frames, tasks, last] = [[], [], null];
  const take = (list) => tasks.push(...list.getEntries().map((one) => one.duration));
  new PerformanceObserver(take).observe({ entryTypes: ["longtask"] });
  const frame = (now) => {
    if (last !== null) frames.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  window.seen = () => {
    const all = { frames, tasks };
    [frames, tasks] = [[], []];
    return all;
  };
}"""
# What scrolls in the list of features, once it is there.
SCROLLER = """() => new Promise((tell) => {
  const look = () => {
    const all = [...document.querySelectorAll("[role=table], [role=table] *, [role=grid], [role=grid] *")];
    const found = all.find((one) => one.scrollHeight > 10 * one.clientHeight && one.clientHeight > 100);
    if (found) tell(found); else requestAnimationFrame(look);
  };
  look();
})"""


class Looking:
    """One page, and what Chromium knows of it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 800})
        self.page = self.context.new_page()
        self.origins: set[str] = set()
        self.said: list[str] = []
        self.page.on("request", lambda request: self.origins.add("/".join(request.url.split("/")[:3])))
        self.page.on("console", lambda message: self.said.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self._cdp = self.context.new_cdp_session(self.page)
        self._cdp.send("Performance.enable", {"timeDomain": "timeTicks"})
        self._browser, self._url = browser, url

    def __enter__(self) -> Looking:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def go(self, place: str) -> None:
        self.page.goto(f"{self._url}/#/{place}")

    def metrics(self) -> dict[str, float]:
        return {one["name"]: one["value"] for one in self._cdp.send("Performance.getMetrics")["metrics"]}

    def heap_mb(self) -> float:
        """What is in use once what nobody needs is gone."""
        self._cdp.send("HeapProfiler.collectGarbage")
        return float(self._cdp.send("Runtime.getHeapUsage")["usedSize"]) / 1e6

    def processes(self) -> dict[str, float]:
        """Seconds of processor so far: of the renderer of this page, and of what draws what it says."""
        session = self._browser.new_browser_cdp_session()
        found = session.send("SystemInfo.getProcessInfo")["processInfo"]
        session.detach()
        gpu = sum(one["cpuTime"] for one in found if one["type"] == "GPU")
        renderers = [one for one in found if one["type"] == "renderer"]
        busiest = max(renderers, key=lambda one: float(one["cpuTime"]))
        return {"renderer": cpu_seconds(busiest["id"]), "gpu": gpu}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
