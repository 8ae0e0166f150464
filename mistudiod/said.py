"""What a worker has said and nobody has written yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mistudiod.events import Labelled, Live, Metric, NoLabel, Scored, WorkerEvent


@dataclass
class Gathered:
    """What came between two writes. Of progress, result and each SAE's live features only the newest counts."""

    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    metrics: list[Metric] = field(default_factory=list)
    live: dict[str, Live] = field(default_factory=dict)
    labels: list[Labelled] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.progress or self.result or self.metrics or self.live or self.labels or self.scores)

    @property
    def counted(self) -> dict[str, int]:
        """How many labels and scores there are; a feature without a label is none."""
        labels = sum(not isinstance(one, NoLabel) for some in self.labels for one in some.labels)
        return {"labels": labels, "scores": sum(len(some.scores) for some in self.scores)}


class Said:
    """Gathers what one worker says. ``saes``: those that its job makes or extracts from; it knows of no other.

    ``of_labels``: its job is about the labels of an SAE; any other knows nothing of them.
    """

    def __init__(self, saes: Sequence[str] = (), of_labels: bool = False) -> None:
        self._saes, self._of_labels = saes, of_labels
        self.failure: dict[str, Any] | None = None
        self._failed: list[Any] = []
        self._partial: str | None = None
        self._gathered = Gathered()

    @property
    def partial(self) -> dict[str, Any] | None:
        """The error of a job that has done only a part, by its result: ``partial`` is the sentence, or ``failed`` are
        those of its SAEs.
        """
        message = self._partial or (partly(self._failed, len(self._saes)) if self._failed else None)
        return {"code": "partial", "message": message} if message else None

    def take(self, event: WorkerEvent) -> None:
        if event.event == "progress":
            self._gathered.progress = event.model_dump(exclude={"event"})
        elif event.event == "metric":
            if (sae := self._named(event.sae)) is not None:
                self._gathered.metrics.append(event.model_copy(update={"sae": sae}))
        elif event.event == "live":
            if sae := self._named(event.sae):
                self._gathered.live[sae] = event.model_copy(update={"sae": sae})
        elif event.event == "result":
            self._gathered.result = event.result
            failed, partial = event.result.get("failed"), event.result.get("partial")
            self._failed = failed if isinstance(failed, list) else []
            self._partial = partial[:4000] if isinstance(partial, str) else None
        elif event.event == "labels":
            if self._of_labels:
                self._gathered.labels.append(event)
        elif event.event == "scores":
            if self._of_labels:
                self._gathered.scores.append(event)
        elif event.event == "failure":
            self.failure = event.model_dump(exclude={"event"}, exclude_none=True)

    def _named(self, sae: str | None) -> str | None:
        """The SAE that is meant: the only one where none is named, none of several; None when there is no such."""
        if sae is None:
            return self._saes[0] if len(self._saes) == 1 else ""
        return sae if sae in self._saes else None

    def put_back(self, gathered: Gathered) -> None:
        """What could not be written, to be collected again; what has been said since then wins."""
        newer = self._gathered
        self._gathered = Gathered(
            newer.progress or gathered.progress,
            newer.result or gathered.result,
            gathered.metrics + newer.metrics,
            {**gathered.live, **newer.live},
            gathered.labels + newer.labels,
            gathered.scores + newer.scores,
        )

    def collect(self) -> Gathered:
        taken, self._gathered = self._gathered, Gathered()
        return taken


def partly(failed: Sequence[Any], all: int) -> str:
    """A sentence on those of a result's ``failed``: ``{"sae", "message"}`` each."""
    reasons = [f"{one.get('sae')} ({one.get('message')})" for one in failed if isinstance(one, dict)]
    return f"{len(failed)} of {all} SAEs failed: {'; '.join(reasons)}"[:4000]
