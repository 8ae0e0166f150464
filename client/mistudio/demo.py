"""The whole way, from text to a steered sentence: the jobs that a user would submit, and nothing else."""

from __future__ import annotations

from typing import Any

from mistudio import human
from mistudio.api import ENDED, Client, Job
from mistudio.errors import ApiError
from mistudio.progress import Drawing, follow
from mistudio.watch import Failed

Spec = dict[str, Any]

SAE = "pico-demo"
MODEL: Spec = {"kind": "add_model", "source": "builtin:pico", "name": "pico"}
DATASET: Spec = {"kind": "add_dataset", "source": "builtin:python", "name": "python"}
TOKENS: Spec = {"kind": "tokenize", "dataset": "python", "model": "pico", "name": "python-pico", "context": 128}
TRAIN: Spec = {
    "kind": "train",
    "name": SAE,
    "tokenization": "python-pico",
    "hook": "blocks.3.hook_resid_post",
    "width": 2048,
    "k": 32,
    "tokens": 1_200_000,
    "batch_tokens": 2048,
}
EXTRACT: Spec = {"kind": "extract", "sae": SAE, "features": 10}
STAGES = {"model": MODEL, "dataset": DATASET, "tokens": TOKENS, "SAE": TRAIN, "features": EXTRACT}

PROMPT = "def read_lines(path):\n    "
STRENGTH_OF_MAX = 0.75  # how strongly the feature is added: this times its greatest activation
WRITTEN_TOKENS = 60


class Demo:
    """One showing. ``run`` gives what it found; ``waiting`` are the jobs that go on when it is broken off."""

    def __init__(self, client: Client, drawing: Drawing) -> None:
        self._client, self._drawing = client, drawing
        self.waiting: list[int] = []

    def run(self) -> dict[str, Any]:
        """``{"stages", "sae", "features", "feature", "strength", "steer"}``. Raises Failed with the job that failed."""
        jobs = self._submit()
        stages = [self._stage(n, title, job) for n, (title, job) in enumerate(jobs.items(), 1)]
        features = self._client.features(SAE)["features"]
        strongest = max(features, key=lambda feature: float(feature["max"]))
        strength = round(STRENGTH_OF_MAX * strongest["max"], 2)
        steer = self._client.steer(
            SAE, PROMPT, {strongest["index"]: strength}, max_tokens=WRITTEN_TOKENS, temperature=0.7, seed=0
        )
        stages.append(self._stage(len(jobs) + 1, "steered text", steer))
        return {
            "stages": stages,
            "sae": self._client.artifact("sae", SAE),
            "features": features,
            "feature": strongest["index"],
            "strength": strength,
            "steer": self._client.job(steer["id"])["result"],
        }

    def _submit(self) -> dict[str, Job | None]:
        """Queue all that is missing at once: each job waits by itself for those that make what it reads."""
        live = [job for job in self._client.every_job() if job["state"] not in ENDED]
        jobs: dict[str, Job | None] = {}
        for title, spec in STAGES.items():
            made_anew = spec is EXTRACT and jobs["SAE"] is not None  # features found in an earlier SAE will not do
            jobs[title] = None if self._is_there(spec) and not made_anew else self._maker(spec, live)
        self.waiting = [job["id"] for job in jobs.values() if job]
        return jobs

    def _is_there(self, spec: Spec) -> bool:
        from mistudiod.specs import MAKES

        try:
            if spec["kind"] == "extract":
                self._client.features(spec["sae"])
            else:
                self._client.artifact(MAKES[spec["kind"]], spec["name"])
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def _maker(self, spec: Spec, live: list[Job]) -> Job:
        """The job that is making it already, or a new one."""
        for job in live:
            if all(job["spec"].get(field) == spec.get(field) for field in ("kind", "name", "sae")):
                return self._client.resume(job["id"]) if job["state"] == "paused" else job
        return self._client.submit(spec)

    def _stage(self, n: int, title: str, job: Job | None) -> dict[str, Any]:
        label = f"{n}/{len(STAGES) + 1} {title}"
        if job is None:
            self._drawing.note(f"{label}: reused")
            return {"stage": title, "job": None, "seconds": None}
        ended = follow(self._client, job["id"], self._drawing, label)
        self.waiting = [one for one in self.waiting if one != job["id"]]
        if ended["state"] != "done":
            raise Failed(ended)
        return {"stage": title, "job": job["id"], "seconds": human.between(ended["started_at"], ended["ended_at"])}
