"""Write a continuation of a prompt twice, as the model would and with features amplified or suppressed."""

from __future__ import annotations

from pathlib import Path

import torch

from mistudiod.engine.lm import load_lm
from mistudiod.engine.precision import NoPrecision
from mistudiod.engine.steer import adding, prompt_ids, write
from mistudiod.facts import UnknownModel
from mistudiod.specs import Steer
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.trained import Trained, open_trained


def run(spec: Steer, link: Link) -> None:
    link.progress("load model", 0, 1)
    trained = open_trained(spec.sae, link)
    direction = _direction(spec, trained)
    try:
        lm = load_lm(Path(trained.model["path"]), trained.device, trained.precision)
    except (UnknownModel, NoPrecision) as error:
        raise Refused(str(error), "sae") from error
    ids = prompt_ids(lm, spec.prompt)
    room = lm.facts.context - ids.shape[1]
    if room < spec.max_tokens:
        field = "prompt" if room < 1 else "max_tokens"
        raise Refused(
            f"the prompt has {ids.shape[1]} tokens and {spec.max_tokens} are asked for, but {trained.model['name']} "
            f"reads only {lm.facts.context}: shorten the prompt or ask for fewer",
            field,
        )
    link.progress("load model", 1, 1)
    texts = []
    for done, edits in enumerate([None, {trained.hook_out: adding(direction)}]):
        link.check()
        link.progress("write", done, 2, "texts")
        texts.append(lm.tokenizer.decode(write(lm, ids, spec.max_tokens, spec.temperature, spec.seed, edits)))
    link.progress("write", 2, 2, "texts")
    link.result(
        {
            "sae": spec.sae,
            "hook": trained.hook_out,
            "prompt": spec.prompt,
            "seed": spec.seed,
            "baseline": {"text": texts[0]},
            "steered": [{"text": texts[1], "strengths": [one.model_dump() for one in spec.strengths]}],
        }
    )


def _direction(spec: Steer, trained: Trained) -> torch.Tensor:
    """The sum of strength x unit decoder row over the features: (d_model,)."""
    sae = trained.sae
    for one in spec.strengths:
        if one.feature >= sae.d_sae:
            known = f"{spec.sae} has features 0 to {sae.d_sae - 1}"
            raise Refused(f"{known}; there is no feature {one.feature}", "strengths")
    rows = torch.nn.functional.normalize(sae.W_dec[[one.feature for one in spec.strengths]], dim=1)
    return torch.tensor([one.strength for one in spec.strengths], device=rows.device) @ rows
