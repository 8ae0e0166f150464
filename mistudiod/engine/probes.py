"""What a few latents know of a text, and where a latent for a letter has holes: both at once, and said in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_lowercase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.absorption import absorption
from mistudiod.engine.harvest import Harvest
from mistudiod.engine.probe_sample import TOKENS, NoSample, Spell, Units, take
from mistudiod.engine.probe_tasks import TASKS
from mistudiod.engine.probing import sparse_probing
from mistudiod.engine.sae import SparseAutoencoder


def probes(
    harvest: Harvest,
    numbers: NDArray[np.integer],
    columns: slice,
    sae: SparseAutoencoder,
    spell: Spell,
    documents: Units,
    told: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """``{"said", "probing", "absorption"}`` of an SAE on held-out windows ``numbers``, JSON-ready.

    ``columns``: what it reads of the harvest; ``spell``: the bytes of tokens; ``documents``: of windows (n,) the
    document of each token (n, context); ``told`` hears of a stage how much is done and of how much. ``probing`` is as
    ``sparse_probing`` gives it, ``absorption`` as ``absorption`` does; both are None, and ``said`` has why, where no
    sample can be taken. Raises NoActivations when activations are not finite.
    """
    try:
        sample = take(
            harvest, numbers, columns, sae, spell, documents, lambda n: told("take tokens for probes", n, TOKENS)
        )
    except NoSample as error:
        return {"said": [f"no probes: {error}"], "probing": None, "absorption": None}
    probing = sparse_probing(sample, sae.d_sae, lambda n: told("probe latents", n, len(TASKS)))
    absorbing = absorption(sample, sae, lambda n: told("look for absorption", n, len(ascii_lowercase)))
    return {"said": sentences(probing, absorbing), "probing": probing, "absorption": absorbing}


def sentences(probing: Mapping[str, Any], absorbing: Mapping[str, Any]) -> list[str]:
    """What was found, in words with their numbers."""
    mean, questions = probing["mean"], len(probing["tasks"])
    if mean is None:
        said = ["no question about the text has tokens enough to train and try a probe on: measure on more text"]
    else:
        one, number, all = (_share(mean[name]) for name in ("latents 1", "numbers 1", "all"))
        said = [
            f"of {questions} questions about the text a probe of the one best latent answers {one} rightly, of the one "
            f"best number of the activation {number}, of the whole activation {all}; chance is 50 %: "
            f"{_compared(mean['gain 1'])}"
        ]
    if absorbing["measured"]:
        said.append(
            f"absorption: on {_share(absorbing['rate'])} of words the latents for their first letter are silent while "
            f"another one writes it, over {absorbing['measured']} letters that could be measured"
        )
    else:
        [why, *others] = set(absorbing["left_out"].values())
        said.append(f"no absorption: {'no letter has words enough that a probe finds it in' if others else why}")
    return said


def _compared(gain: Mapping[str, Any]) -> str:
    than = "than the numbers they are made of"
    low, high = gain["interval"] or (-1.0, 1.0)
    if low > 0:
        return f"latents tell more {than}"
    return f"latents tell less {than}" if high < 0 else f"it cannot be told whether latents tell more {than}"


def _share(figure: Mapping[str, Any]) -> str:
    value = f"{100 * figure['value']:.1f} %"
    if figure["interval"] is None:
        return value
    low, high = (100 * one for one in figure["interval"])
    return f"{value} ({low:.1f} to {high:.1f})"
