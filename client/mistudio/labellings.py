"""The part of the client that is about labels: what features are called, by whom, and what that is worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from mistudio.pages import given

if TYPE_CHECKING:
    from mistudiod.specs import Spec

Label = dict[str, Any]
_AT_ONCE = 1000  # labels in a request


class Labellings:
    """``Client`` has these methods. ``sae`` is a name or an id."""

    _ask: Callable[..., dict[str, Any]]
    _named: Callable[..., dict[str, Any]]
    submit: Callable[..., dict[str, Any]]
    export_lines: Callable[..., Iterator[bytes]]

    def start_labels(self, sae: str, **fields: Any) -> dict[str, Any]:
        """The queued job that labels features. ``fields`` as of mistudiod.specs.Label."""
        return self.submit({"kind": "label", "sae": sae, **fields})

    def score_labels(self, sae: str, **fields: Any) -> dict[str, Any]:
        """The queued job that finds out what labels are worth. ``fields`` as of mistudiod.specs.Score."""
        return self.submit({"kind": "score", "sae": sae, **fields})

    def estimate_labels(self, sae: str | int, spec: Mapping[str, Any] | Spec) -> dict[str, Any]:
        """What such a job would take: ``{"features", "calls", "prompt_tokens", "answer_tokens", "cost_usd", …}``."""
        body = dict(spec) if isinstance(spec, Mapping) else spec.model_dump()
        return self._named("estimate_labels", "sae", sae, body={"spec": body})

    def label(self, sae: str | int, index: int) -> Label | None:
        """The label that stands for a feature, None when it has none."""
        return self._named("label", "sae", sae, index=index)

    def labels(self, sae: str | int, index: int) -> dict[str, Any]:
        """``{"labels", "failure"}``: all that a feature has had, the newest first, each with its ``scores``.

        ``failure``: why the last try to label it gave nothing, ``{"job", "reason", "at"}``, or None.
        """
        return self._named("labels", "sae", sae, index=index)

    def set_label(self, sae: str | int, index: int, text: str, explanation: str | None = None) -> Label:
        """A person's label, which no job replaces."""
        return self._named("set_label", "sae", sae, body=given(text=text, explanation=explanation), index=index)

    def accept_label(self, sae: str | int, label: int) -> Label:
        """By its id: it stands as if a person had written it."""
        return self._named("accept_label", "sae", sae, label=label)

    def reject_label(self, sae: str | int, label: int) -> Label:
        """By its id: it stands for the feature no more."""
        return self._named("reject_label", "sae", sae, label=label)

    def export_labels(self, sae: str | int) -> Iterator[Label]:
        for line in self.export_lines("export_labels", sae):
            yield json.loads(line)

    def import_labels(self, sae: str | int, labels: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Labels as ``export_labels`` gives them, of this SAE or another of the same latents; a thousand in a request.

        ``{"imported", "known"}``: how many were new here, and how many not. None replaces what a person has said here.
        """
        rest, found = iter(labels), dict[str, Any]()
        while (some := [dict(one) for one in islice(rest, _AT_ONCE)]) or not found:
            taken = self._named("import_labels", "sae", sae, body={"labels": some})
            found = {name: found.get(name, 0) + count for name, count in taken.items()}
        return found

    def label_summary(self, sae: str | int) -> dict[str, Any]:
        """``{"labelled", "history", "providers", "failures", "scores"}``: how many features have a label, by whom, why
        others have none, and what the labels as a whole are worth by each method and judge."""
        return self._named("label_summary", "sae", sae)

    def endpoints(self) -> list[dict[str, Any]]:
        """Whom labels may be asked of: ``[{"name", "url", "on_this_machine", "has_secret"}]``."""
        found: list[dict[str, Any]] = self._ask("endpoints")["endpoints"]
        return found

    def try_endpoint(self, name: str) -> dict[str, Any]:
        """The models that it has, ``{"models", "left_out"}``; what keeps it from answering is raised."""
        return self._ask("try_endpoint", name=name)

    def templates(self) -> list[dict[str, Any]]:
        """The prompts that labels can be asked for with."""
        found: list[dict[str, Any]] = self._ask("templates")["templates"]
        return found

    def template(self, name: str) -> dict[str, Any]:
        """``{"name", "text", "sha256"}``."""
        return self._ask("template", name=name)

    def label_prompt(self, sae: str | int, index: int, template: str | None = None) -> dict[str, Any]:
        """``{"template", "messages"}``: the very question that an LLM is asked of a feature."""
        return self._named("label_prompt", "sae", sae, given(template=template), index=index)

    def set_template(self, name: str, text: str) -> dict[str, Any]:
        return self._ask("set_template", body={"text": text}, name=name)
