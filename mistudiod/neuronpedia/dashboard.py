"""A feature store as the files that SAEDashboard writes, from which its own converters make an import:

    batch-{k}.json  skipped_indexes.json

Without ``run_settings.json``, which holds the settings of a program that did not run. Tokens of an example are those
around its peak that the store shows, not a whole prompt, and no first position is dropped from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mistudiod.neuronpedia import bars, records
from mistudiod.neuronpedia.bars import Bars, Page
from mistudiod.neuronpedia.records import About, Record, clean_all
from mistudiod.pages import Pages

AT_ONCE = 256  # features of a file: 131,072 make 512, which every importer lists


def write(folder: Path, pages: Pages, about: About, heard: Callable[[int], None] = lambda done: None) -> int:
    """Fill an empty folder; ``heard`` is told how many features are written, and may raise. Returns how many files."""
    names = about.names
    for batch, first in enumerate(range(0, pages.d_sae, AT_ONCE)):
        head = {"model_id": names.model, "layer": names.layer, "sae_set": names.set, "sae_id_suffix": names.suffix}
        with (folder / f"batch-{batch}.json").open("w", encoding="utf-8", newline="\n") as file:
            file.write(_json(head)[:-1] + ',"features":[')
            for index in range(first, min(first + AT_ONCE, pages.d_sae)):
                file.write(("," if index > first else "") + _json(feature(pages, about, index)))
                heard(index + 1)
            file.write("]}")
    layer = names.source.partition("-")[0]
    skipped = {"model_id": names.model, "layer": layer, "sae_set": names.set, "log_sparsity": 0, "skipped_indexes": []}
    (folder / "skipped_indexes.json").write_text(_json(skipped))
    return batch + 1


def feature(pages: Pages, about: About, index: int) -> Record:
    """One feature of a batch, every key that the format has."""
    page = pages.page(index)
    drawn, of_logits = bars.of_activations(pages, page), bars.of_logits(page)
    (pos_str, pos_values), (neg_str, neg_values) = records.logits(page, "top"), records.logits(page, "bottom")
    unknown = ("neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1",
               "correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson",
               "correlated_features_indices", "correlated_features_l1", "correlated_features_pearson")  # fmt: skip
    return {
        "feature_index": index,
        **{name: [] for name in unknown},
        "neg_str": neg_str,
        "neg_values": neg_values,
        "pos_str": pos_str,
        "pos_values": pos_values,
        "frac_nonzero": page["density"],
        "freq_hist_data_bar_values": drawn.values,
        "freq_hist_data_bar_heights": drawn.heights,
        "logits_hist_data_bar_values": of_logits.values,
        "logits_hist_data_bar_heights": of_logits.heights,
        "n_prompts_total": about.prompts,
        "n_tokens_in_prompt": about.tokens_in_prompt,
        "dataset": about.dataset or "",
        "decoder_weights_dist": [],
        "activations": _activations(page, drawn),
        "vector": [],
    }


def _activations(page: Page, drawn: Bars) -> list[Record]:
    """The strongest first, then the intervals from the highest to the lowest.

    An example whose interval is not known is left out: the format has no way to say so.
    """
    found, largest = [], records.strongest(page)
    for one in page["examples"]:
        low, high, share = records.bounds(page, drawn, one, largest)
        if low is not None and high is not None:
            found.append({
                "bin_min": low,
                "bin_max": high,
                "bin_contains": share,
                "tokens": clean_all(one["texts"]),
                "values": one["activations"],
                "qualifying_token_index": one["peak"],
                "dfa_values": [],
                "dfa_maxValue": 0,
                "dfa_targetIndex": -1,
            })  # fmt: skip
    return sorted(found, key=lambda one: (one["bin_min"] != -1, -one["bin_max"]))


def _json(value: Record) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
