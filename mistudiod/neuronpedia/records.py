"""Rows of Neuronpedia's tables, made from a feature store; the keys of each in one fixed order.

A row holds what the store knows. What it does not know is written as the importer allows: no neuron alignment, no
correlated neurons, no vector, no embedding of a label, no place on a map. See docs/formats.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistudiod.neuronpedia.bars import Bars, Page, interval, of_logits
from mistudiod.neuronpedia.names import DEFAULT_CREATOR, Names, check_release

Record = dict[str, Any]
Label = Mapping[str, Any]  # as the studio gives it: "text", "explanation", "provider", "model", "created_at"
TOKENS = 10  # of the logits, on either side
NUL = "␀"  # what stands for the character that PostgreSQL cannot hold
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class About:
    """What an export says of itself. ``created_at``: ISO 8601; the same gives the same bytes again.

    ``layers`` and ``neurons`` (of an MLP of one layer) are the model's; ``prompts`` windows of ``tokens_in_prompt``
    were read. ``models``: those that the instance knows by name; a label by another is written without its model.
    """

    names: Names
    hook: str
    description: str  # of the set of sources, such as "Residual stream, 16k"
    release: str
    release_description: str
    creator_name: str
    layers: int
    neurons: int
    owner: str  # who made the model
    prompts: int
    tokens_in_prompt: int
    created_at: str
    dataset: str | None = None
    kind: str = ""  # of activations, such as "Residual"
    instruct: bool = False
    urls: tuple[str, ...] = ()
    hf_repo: str | None = None
    hf_folder: str | None = None  # within the repo, whole
    creator: str = DEFAULT_CREATOR
    visibility: str = "PUBLIC"
    models: Collection[str] = ()

    def __post_init__(self) -> None:
        check_release(self.release)
        if self.layers < 1 or self.layers <= (self.names.layer or 0):
            raise ValueError(f"a model of {self.layers} layers has no layer {self.names.layer}")


def clean(text: str) -> str:
    """Text that PostgreSQL takes: NUL becomes ␀, half a surrogate pair U+FFFD; everything else stays."""
    return _SURROGATES.sub("\ufffd", text).replace("\0", NUL)


def clean_all(texts: Sequence[str]) -> list[str]:
    """The same of tokens, few of which need it."""
    whole = "".join(texts)
    return [clean(one) for one in texts] if "\0" in whole or _SURROGATES.search(whole) else list(texts)


def encode(record: Record) -> bytes:
    r"""A line of JSON. A backslash before ``u0000`` is written as \u005c: the importer replaces those six characters
    wherever they stand, and would break the line.
    """
    line = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return line.replace("\\\\u0000", "\\u005cu0000").encode() + b"\n"


def id_of(*parts: object) -> str:
    """25 characters, by what they stand for: the same again in every export, so that none is imported twice."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=12).hexdigest()
    return "c" + digest


def release(about: About) -> Record:
    return {
        "name": about.release,
        "description": clean(about.release_description),
        "descriptionShort": clean(about.release_description),
        "urls": list(about.urls),
        "creatorName": clean(about.creator_name),
        "creatorNameShort": clean(about.creator_name),
        "creatorId": about.creator,
        "visibility": about.visibility,
        "isNewUi": True,
        "featured": False,
        "defaultUmapSourceIds": [],
        "createdAt": about.created_at,
    }


def model(about: About) -> Record:
    """Without a default source: that is a row which is not there yet when this one is imported."""
    return {
        "id": about.names.model,
        "displayName": about.names.model,
        "displayNameShort": about.names.model,
        "creatorId": about.creator,
        "layers": about.layers,
        "neuronsPerLayer": about.neurons,
        "owner": clean(about.owner),
        "instruct": about.instruct,
        "visibility": about.visibility,
        "inferenceEnabled": False,
        "createdAt": about.created_at,
        "updatedAt": about.created_at,
    }


def source_set(about: About) -> Record:
    return {
        "modelId": about.names.model,
        "name": about.names.set,
        "type": clean(about.kind),
        "description": clean(about.description),
        "creatorName": clean(about.creator_name),
        "creatorId": about.creator,
        "releaseName": about.release,
        "urls": list(about.urls),
        "visibility": about.visibility,
        "hasDashboards": True,
        "allowInferenceSearch": False,
        "defaultRange": 1,
        "defaultShowBreaks": True,
        "showDfa": False,
        "showCorrelated": False,
        "showHeadAttribution": False,
        "showUmap": False,
        "createdAt": about.created_at,
    }


def source(about: About) -> Record:
    """Without ``inferenceHosts``, which newer instances do not know."""
    return {
        "id": about.names.source,
        "modelId": about.names.model,
        "setName": about.names.set,
        "creatorId": about.creator,
        "visibility": about.visibility,
        "hasDashboards": True,
        "inferenceEnabled": False,
        "num_prompts": about.prompts,
        "num_tokens_in_prompt": about.tokens_in_prompt,
        "dataset": about.dataset,
        "hfRepoId": about.hf_repo,
        "hfFolderId": about.hf_folder,
        "createdAt": about.created_at,
    }


def strongest(page: Page) -> float:
    """The largest activation among the strongest examples; 0 of a dead feature."""
    return max((max(one["activations"]) for one in page["examples"] if one["kind"] == "top"), default=0)


def logits(page: Page, end: str) -> tuple[list[str], list[float]]:
    """The tokens that a feature makes likelier (``end`` "top") or less likely ("bottom"), the strongest first."""
    some = page["logits"][end][:TOKENS] if page["logits"] else []
    return [clean(one["text"]) for one in some], [one["value"] for one in some]


def neuron(about: About, page: Page, bars: Bars) -> Record:
    """Of a feature; a dead one too, whose maximum is 0."""
    drawn, most = of_logits(page), strongest(page)
    (pos_str, pos_values), (neg_str, neg_values) = logits(page, "top"), logits(page, "bottom")
    alike = page["neighbours"]["decoder"]
    return {
        **_place(about, page["index"]),
        "sourceSetName": about.names.set,
        "creatorId": about.creator,
        "createdAt": about.created_at,
        "maxActApprox": most,
        "frac_nonzero": page["density"],
        "pos_str": pos_str,
        "pos_values": pos_values,
        "neg_str": neg_str,
        "neg_values": neg_values,
        "freq_hist_data_bar_values": bars.values,
        "freq_hist_data_bar_heights": bars.heights,
        "logits_hist_data_bar_values": drawn.values,
        "logits_hist_data_bar_heights": drawn.heights,
        "neuron_alignment_indices": [],
        "neuron_alignment_values": [],
        "neuron_alignment_l1": [],
        "correlated_neurons_indices": [],
        "correlated_neurons_pearson": [],
        "correlated_neurons_l1": [],
        "topkCosSimIndices": [one["index"] for one in alike],
        "topkCosSimValues": [one["cosine"] for one in alike],
        "decoder_weights_dist": [],
        "hasVector": False,
        "vector": [],
        "vectorLabel": None,
        "hookName": about.hook,
        "vectorDefaultSteerStrength": most,
    }


def activations(about: About, page: Page, bars: Bars) -> Iterator[Record]:
    """Of a feature's examples, in the store's order: the strongest, those of fifths of the maximum, some at random, and
    near misses, whose activations are 0.
    """
    largest = strongest(page)
    for one in page["examples"]:
        values = one["activations"]
        most = max(values)
        low, high, share = bounds(page, bars, one, largest)
        place = one["window"], one["first"] + one["peak"]
        yield {
            "id": id_of(about.names.model, about.names.source, page["index"], one["kind"], *place),
            **_place(about, page["index"]),
            "creatorId": about.creator,
            "tokens": clean_all(one["texts"]),
            "values": values,
            "maxValue": most,
            "maxValueTokenIndex": values.index(most),
            "minValue": min(values),
            "binMin": low,
            "binMax": high,
            "binContains": share,
            "qualifyingTokenIndex": one["peak"],
            "dfaValues": [],
            "dfaTargetIndex": None,
            "dfaMaxValue": None,
            "lossValues": [],
            "createdAt": about.created_at,
        }


def bounds(
    page: Page, bars: Bars, example: Mapping[str, Any], largest: float
) -> tuple[float | None, float | None, float | None]:
    """The group of an example: -1, ``largest``, -1 for the strongest, else an interval and its share of tokens."""
    if example["kind"] == "top":
        return -1, largest, -1
    return interval(page, bars, example) or (None, None, None)


def explanation(about: About, index: int, label: Label) -> Record:
    """Of a label; its method is known only of a person's, its model only when the instance knows it by name."""
    text = clean(label["text"])
    return {
        "id": id_of(about.names.model, about.names.source, index, "label", text, label.get("model")),
        **_place(about, index),
        "description": text,
        "authorId": about.creator,
        "typeName": method_of(label),
        "explanationModelName": model_of(about, label),
        "notes": clean(label["explanation"]) if label.get("explanation") else None,
        "createdAt": label.get("created_at") or about.created_at,
    }


def method_of(label: Label) -> str | None:
    return "human" if label.get("provider") == "person" else None


def model_of(about: About, label: Label) -> str | None:
    """``gpt-4o-mini`` of ``openai/gpt-4o-mini``."""
    name = str(label.get("model") or "").rpartition("/")[2]
    return name if name in about.models else None


def _place(about: About, index: int) -> Record:
    return {"modelId": about.names.model, "layer": about.names.source, "index": str(index)}
