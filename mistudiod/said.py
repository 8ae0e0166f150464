"""What a worker has said and nobody has written yet."""

from __future__ import annotations

from typing import Any

from mistudiod.events import WorkerEvent

Values = dict[str, float | None]


class Said:
    """Gathers events between two writes. Only the newest progress counts."""

    def __init__(self) -> None:
        self.failure: dict[str, Any] | None = None
        self._progress: dict[str, Any] | None = None
        self._result: dict[str, Any] | None = None
        self._metrics: list[tuple[int, Values]] = []

    def take(self, event: WorkerEvent) -> None:
        if event.event == "progress":
            self._progress = event.model_dump(exclude={"event"})
        elif event.event == "metric":
            self._metrics.append((event.step, event.values))
        elif event.event == "result":
            self._result = event.result
        elif event.event == "failure":
            self.failure = event.model_dump(exclude={"event"}, exclude_none=True)

    def put_back(
        self, progress: dict[str, Any] | None, result: dict[str, Any] | None, metrics: list[tuple[int, Values]]
    ) -> None:
        """What could not be written, to be collected again; what has been said since then wins."""
        self._progress, self._result = self._progress or progress, self._result or result
        self._metrics = metrics + self._metrics

    def collect(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None, list[tuple[int, Values]]]:
        taken = self._progress, self._result, self._metrics
        self._progress, self._result, self._metrics = None, None, []
        return taken
