"""Every kind of job as a pydantic model: the product's vocabulary, and the source of CLI options and API schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from mistudiod.specs.base import Name, Priority, Spec, check_name
from mistudiod.specs.data import AddDataset, AddModel, PreviewModel, Tokenize, is_hub_id
from mistudiod.specs.label import KEYLESS, Label, Score
from mistudiod.specs.library import AddSae, Certify, Export, PreviewSae, Push, Upload, is_sae_repo, sae_file, sae_place
from mistudiod.specs.many import Many
from mistudiod.specs.measure import Compare, Evaluate, sae_and_step
from mistudiod.specs.previews import (
    PreviewDataset,
    PreviewFilters,
    PreviewTokens,
    ProbeDevice,
    SampleDataset,
    TryEndpoint,
)
from mistudiod.specs.steer import Calibrate, Complete, Edit, Load, Message, Precision, Session, Steer
from mistudiod.specs.train import PRESETS, One, Train
from mistudiod.specs.use import Extract, Inspect

__all__ = [
    "ASKED",
    "KEYLESS",
    "KINDS",
    "LANES",
    "MAKES",
    "NEEDS",
    "PRESETS",
    "PREVIEWS",
    "RESIDENT",
    "USES",
    "AddDataset",
    "AddModel",
    "AddSae",
    "AnySpec",
    "Calibrate",
    "Certify",
    "Compare",
    "Complete",
    "Edit",
    "Evaluate",
    "Export",
    "Extract",
    "Inspect",
    "JobRequest",
    "Label",
    "Load",
    "Many",
    "Message",
    "Name",
    "One",
    "Precision",
    "PreviewDataset",
    "PreviewFilters",
    "PreviewModel",
    "PreviewSae",
    "PreviewTokens",
    "Priority",
    "ProbeDevice",
    "Push",
    "SampleDataset",
    "Score",
    "Session",
    "Spec",
    "Steer",
    "Tokenize",
    "Train",
    "TryEndpoint",
    "Upload",
    "check_name",
    "is_hub_id",
    "is_sae_repo",
    "names_made",
    "read_by",
    "sae_and_step",
    "sae_file",
    "sae_place",
]

AnySpec = Annotated[
    AddModel
    | AddDataset
    | AddSae
    | Tokenize
    | Train
    | Extract
    | Inspect
    | Label
    | Score
    | Steer
    | Certify
    | Evaluate
    | Compare
    | Export
    | Push
    | Upload,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[Spec]] = {
    model.model_fields["kind"].default: model
    for model in (
        AddModel,
        AddDataset,
        AddSae,
        Tokenize,
        Train,
        Extract,
        Inspect,
        Label,
        Score,
        Steer,
        Certify,
        Evaluate,
        Compare,
        Export,
        Push,
        Upload,
    )
}
PREVIEWS: dict[str, type[Spec]] = {
    "sample_dataset": SampleDataset,
    "preview_dataset": PreviewDataset,
    "preview_model": PreviewModel,
    "preview_sae": PreviewSae,
    "preview_filters": PreviewFilters,
    "preview_tokens": PreviewTokens,
    "probe_device": ProbeDevice,
    "try_endpoint": TryEndpoint,
}
RESIDENT: dict[str, type[Spec]] = {"session": Session}  # kinds of workers that stay and are asked
ASKED: dict[str, type[Spec]] = {"load": Load, "steer": Steer, "calibrate": Calibrate, "complete": Complete}  # of them
LANES = {
    **dict.fromkeys(
        ("add_model", "add_dataset", "add_sae", "tokenize", "label", "score", "export", "push", "upload"), "io"
    ),
    **dict.fromkeys(("train", "extract", "inspect", "steer", "certify", "evaluate", "compare"), "gpu"),
}


class JobRequest(Spec):
    """What POST /api/jobs takes."""

    spec: AnySpec
    after: list[Annotated[int, Field(ge=1, lt=2**62)]] = Field(
        default_factory=list, max_length=100, description="jobs that must be done first"
    )
    priority: Priority = 0


# Which noun each kind makes, under the names of ``names_made``, and which artifacts it reads: {field: noun}. A field
# that is not given reads nothing, one that is a list reads each of it.
MAKES = {
    "add_model": "model",
    "add_dataset": "dataset",
    "tokenize": "tokenization",
    "train": "sae",
    "add_sae": "sae",
    "certify": "sae",
}
USES: dict[str, dict[str, str]] = {
    "add_model": {},
    "add_dataset": {},
    "add_sae": {"model": "model"},
    "tokenize": {"dataset": "dataset", "model": "model"},
    "train": {"tokenization": "tokenization", "extends": "sae"},
    "extract": {"sae": "sae", "tokenization": "tokenization"},
    "inspect": {"sae": "sae"},
    "label": {"sae": "sae"},
    "score": {"sae": "sae"},
    "steer": {"sae": "sae"},
    "certify": {"sae": "sae", "tokenization": "tokenization"},
    "evaluate": {"sae": "sae", "tokenization": "tokenization"},
    "compare": {"saes": "sae", "tokenization": "tokenization"},
    "export": {"sae": "sae"},
    "push": {"sae": "sae"},
    "upload": {"sae": "sae"},
}

# Names of the secrets that a kind's worker is handed; no other worker gets any.
NEEDS: dict[str, tuple[str, ...]] = {
    "add_model": ("hf",),
    "add_dataset": ("hf",),
    "preview_dataset": ("hf",),
    "preview_model": ("hf",),
    "add_sae": ("hf",),
    "preview_sae": ("hf",),
    "push": ("hf",),
    "upload": ("neuronpedia",),
}


def read_by(kind: str, spec: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What a spec names, as JSON has it: (field, noun, name) of each artifact that its job reads."""
    for field, noun in USES[kind].items():
        named = spec.get(field)
        for name in named if isinstance(named, list) else [named]:
            if isinstance(name, str):
                yield field, noun, sae_and_step(name)[0] if noun == "sae" else name


def names_made(spec: Spec) -> list[str]:
    """What a job calls what it makes: its ``name``, or one of each SAE of a training; nothing when it makes nothing.

    A certification makes the repaired SAE, when it is asked to.
    """
    if isinstance(spec, Train):
        return [one.name for one in spec.saes()]
    if isinstance(spec, Certify):
        return [spec.repaired] if spec.repair else []
    return [str(getattr(spec, "name"))] if getattr(spec, "kind") in MAKES else []  # noqa: B009 - Spec has neither
