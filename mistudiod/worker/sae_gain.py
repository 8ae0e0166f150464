"""SAEs that read what the norm in front of the MLP gives before it multiplies by its own weight, as Gemma Scope's
transcoders do: TransformerLens' ``ln2.hook_normalized``. They are brought to what the MLP reads, which is that product.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from mistudiod.engine.formats import Imported
from mistudiod.engine.tensor_files import times
from mistudiod.engine.weights import lazy_weights
from mistudiod.facts import FAMILIES, UnknownModel, read_facts
from mistudiod.specs import AddSae
from mistudiod.worker.link import Refused
from mistudiod.worker.sae_model import Place, as_read

_LEAST = 1e-6  # a smaller weight has wiped the number out


def fold_gain(spec: AddSae, imported: Imported, place: Place) -> None:
    """Let an SAE that reads ``ln2.hook_normalized`` read ``mlp.hook_in`` of the same block, and say so. Raises Refused.

    x = y / g, so (x - b_dec) W_enc is (y - b_dec g) (W_enc / g); what is no transcoder rebuilds y too.
    """
    said, sae = spec.hook or imported.hook, imported.sae
    if as_read(imported.hook) == place.hook:
        said = imported.hook
    if said == place.hook or as_read(said) != place.hook:
        return
    if sae.norm != "none":
        raise Refused(f"it reads {said} and applies {sae.norm} to it, which has no form here", "source")
    gain = _gain(place)
    if gain is None:  # a LayerNorm's hook_normalized is what it gives, all done
        imported.notes.append(
            f"What it calls {said} is what the MLP reads, unless its makers folded the norm's weight."
        )
        return
    times(sae.W_enc, 1 / gain[:, None])
    if sae.W_skip is not None:
        sae.W_skip /= gain
    if not sae.transcodes:
        times(sae.W_dec, gain)
        sae.b_dec *= gain
    imported.notes.append(
        f"It reads {said}, which is before the norm multiplies by its weight; that weight of {place.model['name']} was "
        "folded in, so that it reads what the MLP reads."
    )


def _gain(place: Place) -> Tensor | None:
    """(d_model,): by what the norm multiplies; None where it takes the mean away, and so gives its product as it is."""
    folder = Path(place.model["path"])
    try:
        family = FAMILIES[read_facts(folder).family]
        if family.norm_centres:
            return None
        block = place.hook.split(".")[1]
        name = re.compile(rf"(?:.*\.)?{family.blocks}\.{block}\.{family.mlp_norm}\.weight")
        found = [one for full, one in lazy_weights(folder).items() if name.fullmatch(full)]
    except UnknownModel as error:
        raise Refused(str(error), "model") from error
    if len(found) != 1:
        raise Refused(f"{place.model['name']} has no weight of the norm in front of the MLP of block {block}", "model")
    gain = found[0][...].float() + family.norm_adds_one
    if bool((gain.abs() < _LEAST).any()) or not bool(torch.isfinite(gain).all()):
        raise Refused(
            f"the norm in front of the MLP of block {block} of {place.model['name']} wipes numbers out that it reads",
            "model",
        )
    return gain
