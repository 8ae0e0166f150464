"""The whole way, from text to a steered sentence: the jobs that a user would submit, and nothing else."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mistudio import human
from mistudio.api import ENDED, Client, Job
from mistudio.drawing import Drawing
from mistudio.errors import ApiError
from mistudio.progress import follow
from mistudio.watch import Failed
from mistudio.writing import said

Spec = dict[str, Any]

# What a job reads is left open: it is what the stages before it made.
MODEL: Spec = {"kind": "add_model", "source": "builtin:pico", "name": "pico"}
DATASET: Spec = {"kind": "add_dataset", "source": "builtin:python", "name": "python"}
TOKENS: Spec = {"kind": "tokenize", "name": "python-pico", "context": 128}
TRAIN: Spec = {
    "kind": "train",
    "name": "pico-demo",
    "hook": "blocks.3.hook_resid_post",
    "width": 2048,
    "k": 32,
    "tokens": 1_200_000,
    "batch_tokens": 2048,
}
EXTRACT: Spec = {"kind": "extract", "tokens": 300_000}
LABEL: Spec = {"kind": "label", "endpoint": "tokens"}
SCORE: Spec = {"kind": "score", "methods": ["tokens"]}
STAGES = {
    "model": MODEL,
    "dataset": DATASET,
    "tokens": TOKENS,
    "SAE": TRAIN,
    "features": EXTRACT,
    "labels": LABEL,
    "scores": SCORE,
}
FINDINGS = ("extract", "label", "score")  # kinds of jobs that make nothing with a name of its own

SHOWN, LOOKED_AT = 10, 200
# Features that are strong in each of their examples come first, and of these none that fires all over the text.
FILTERS, SORT = ("alive density<0.01 score>0.8", "alive density<0.01", "alive"), "-typical"

PROMPT = "def read_lines(path):\n    "
FORETELLS = re.compile(r"next: “\w+”")  # a label of a feature after which a word is to come: more of it shows at once
NATS = ("0.5", "0.1")  # how far the model is moved: so far if the text then still holds together
WRITTEN_TOKENS = 60


class Demo:
    """One showing. ``run`` gives what it found; ``waiting`` are the jobs that go on when it is broken off."""

    def __init__(self, client: Client, drawing: Drawing) -> None:
        self._client, self._drawing = client, drawing
        self._names: dict[str, str] = {}  # of what the stages make, by noun
        self.waiting: list[int] = []

    def run(self) -> dict[str, Any]:
        """``{"stages", "model", "sae", "features", "feature", "range", "steer"}``.

        ``stages``: ``{"stage", "job", "seconds"}`` of each, without a job where none was needed, without seconds where
        what an earlier demo made was used again. ``range``: the calibrated range of ``feature``, the first of
        ``features``. ``steer``: as of ``Client.steer``, of its two steered texts the feature is suppressed in the first
        and amplified in the second. Raises Failed with the job that failed, ApiError.
        """
        jobs = self._submit()
        stages = [self._stage(n, title, job) for n, (title, job) in enumerate(jobs.items(), 1)]
        sae = self._names["sae"]
        features = self._shown(sae)
        began = time.monotonic()
        feature = features[0]["index"]
        range, steer = self._steered(sae, feature, f"{len(stages) + 1}/{len(STAGES) + 1} steered text")
        stages.append({"stage": "steered text", "job": None, "seconds": time.monotonic() - began})
        return {
            "stages": stages,
            "model": self._names["model"],
            "sae": self._client.artifact("sae", sae),
            "features": features,
            "feature": feature,
            "range": range,
            "steer": steer,
        }

    def _steered(self, sae: str, feature: int, label: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The calibrated range of a feature, and texts in which it is suppressed and amplified, within that."""

        def draw(about: dict[str, Any]) -> None:
            self._drawing.line(f"{label}: {said(about)}", human.part(about), False)

        self._drawing.line(f"{label}: starting", None, True)
        began = time.monotonic()
        known = self._client.ranges(sae, [feature])
        [range] = known or self._client.calibrate(sae, [feature], draw)["ranges"]
        steer = self._client.steer(
            sae, PROMPT, {feature: 1.0}, on_progress=draw, sweep=[strength(range, "low"), strength(range, "high")],
            max_tokens=WRITTEN_TOKENS, temperature=0.7, seed=0,
        )  # fmt: skip
        self._drawing.line(f"{label}: done in {human.duration(time.monotonic() - began)}", 1.0, True)
        return range, steer

    def _shown(self, sae: str) -> list[dict[str, Any]]:
        """Features to show, the one to steer with first; such as there are where none is as they should be."""
        for filter in FILTERS:
            found = self._client.features(sae, SORT, filter, limit=LOOKED_AT, example=True)["features"]
            if found:
                break
        return chosen(found)

    def _submit(self) -> dict[str, Job | None]:
        """Queue all that is missing at once: each job waits by itself for those that make what it reads."""
        from mistudiod.specs import USES

        live = [job for job in self._client.every_job() if job["state"] not in ENDED]
        jobs: dict[str, Job | None] = {}
        before: Job | None = None
        for title, stage in STAGES.items():
            spec = {
                **stage,
                **{field: self._names[noun] for field, noun in USES[stage["kind"]].items() if noun in self._names},
            }
            jobs[title] = self._found(spec, live, before) if stage["kind"] in FINDINGS else self._made(spec, live)
            before = jobs[title]
        self.waiting = [job["id"] for job in jobs.values() if job]
        return jobs

    def _made(self, spec: Spec, live: list[Job]) -> Job | None:
        """The job that makes it; None when it is there. What another recipe has under its name is left alone."""
        from mistudiod.specs import MAKES

        noun, wanted = MAKES[spec["kind"]], spec["name"]
        taken = {one["name"]: one for one in self._client.every_artifact(noun)}
        making = {
            name for job in live if job["makes"] and job["makes"]["noun"] == noun for name in job["makes"]["names"]
        }
        for n in itertools.count(2):
            self._names[noun] = spec["name"]
            if spec["name"] in taken:
                if _agrees(taken[spec["name"]], spec):
                    return None
            elif job := self._joined(spec, live):
                return job
            elif spec["name"] not in making:
                return self._client.submit(spec)
            spec = {**spec, "name": f"{wanted}-{n}"}
            self._drawing.note(f"the {noun} {self._names[noun]} was made otherwise; trying {spec['name']}")
        raise AssertionError("there is always another name")

    def _found(self, spec: Spec, live: list[Job], before: Job | None) -> Job | None:
        """The job that finds it in what is there; None when it has been found. ``before``: the job of the stage before.

        What was found in an earlier SAE, or of an earlier extraction, will not do.
        """
        if before is None and self._has_found(spec["kind"], spec["sae"]):
            return None
        return self._joined(spec, live) or self._client.submit(spec, after=[before["id"]] if before else [])

    def _has_found(self, kind: str, sae: str) -> bool:
        """A few features may be left without a label or a score."""

        def count(filter: str | None) -> int:
            return int(self._client.features(sae, filter=filter, limit=1)["total"])

        try:
            if kind == "label":
                return count("labelled") > count("alive unlabelled")
            return count("score>0" if kind == "score" else None) > 0
        except ApiError as error:
            if error.status not in (404, 409):  # there is none, or it is of another SAE or an older miStudio
                raise
            return False

    def _joined(self, spec: Spec, live: list[Job]) -> Job | None:
        """The job that does the same already, if there is one."""
        for job in live:
            if _agrees(job["spec"], spec):
                return self._client.resume(job["id"]) if job["state"] == "paused" else job
        return None

    def _stage(self, n: int, title: str, job: Job | None) -> dict[str, Any]:
        label = f"{n}/{len(STAGES) + 1} {title}"
        if job is None:
            self._drawing.note(f"{label}: reused")
            return {"stage": title, "job": None, "seconds": None}
        ended = follow(self._client, job["id"], self._drawing, label)
        self.waiting = [one for one in self.waiting if one != job["id"]]
        if ended["state"] == "partial" and ended["kind"] in FINDINGS:
            self._drawing.note(f"{label}: {(ended['error'] or {}).get('message')}")
        elif ended["state"] != "done":
            raise Failed(ended)
        return {"stage": title, "job": job["id"], "seconds": human.between(ended["started_at"], ended["ended_at"])}


def chosen(features: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those to show, before them the first of whose label one can see what it does to a text, if there is one."""
    clear = [one for one in features if one["label"] and FORETELLS.search(one["label"]["text"])][:1]
    return [*clear, *(one for one in features if one not in clear)][:SHOWN]


def strength(range: Mapping[str, Any], side: str) -> float:
    """Of a calibrated range the strongest that leaves the text whole; ±1 where none was found."""
    broken = range["breaks"][side]
    for nats in NATS:
        found = range["kl"][nats][side]
        if found is not None and (broken is None or abs(found) < abs(broken)):
            return float(f"{found:.3g}")
    return 1.0 if side == "high" else -1.0


def _agrees(made: Mapping[str, Any], spec: Spec) -> bool:
    """Whether something was made as the spec says. An SAE keeps the spec of its training."""
    recipe = {**made, **(made.get("spec") or {}), "kind": spec["kind"]} if "kind" not in made else made
    return all(recipe.get(field) == value for field, value in spec.items())
