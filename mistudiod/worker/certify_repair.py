"""An SAE as it was meant, written beside the one that says otherwise: never in its place, and never unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mistudiod.engine.certify import Bench, Outcome
from mistudiod.engine.near import UNNORMED
from mistudiod.engine.splice import NO_FIGURES
from mistudiod.engine.ways import Way, factors, fold_factors, meant
from mistudiod.specs import Certify
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.read_recipe import WEIGHTS
from mistudiod.worker.recipe import sha256_of
from mistudiod.worker.train_measure import MEASURES
from mistudiod.worker.train_save import job_number
from mistudiod.worker.train_source import SMALL_FILES_BYTES
from mistudiod.worker.trained import Trained

_FIGURES = ("fvu", "l0", "alive", *NO_FIGURES)  # of the best way, as a recipe has them


def written_as_meant(
    spec: Certify, bench: Bench, outcome: Outcome, trained: Trained, certificate: dict[str, Any], link: Link
) -> None:
    """Write ``saes/<sae>-repaired/``: weights, config and recipe with the best way in them.

    Raises Refused, DiskFull.
    """
    way, sae = outcome.best.way, trained.sae
    if way.hook and way.hook.endswith(UNNORMED):
        raise Refused(
            f"{spec.sae} was meant {way.words}, where nothing can be read or steered here: it cannot be repaired",
            "repair",
        )
    final = link.paths.artifact("sae", spec.repaired)
    _refuse_another(final, link)
    read, rebuilt = bench.declared.columns(way)
    repaired = meant(sae, way, bench.sizes[read])
    fold_factors(repaired, *factors(way, bench.sizes[read], bench.sizes[rebuilt]))  # in place: the last use of it
    named: dict[str, object] = {"hook_name": way.hook} if way.hook else {}
    if way.bos:
        named["prepend_bos"] = way.bos == "with"
    with new_folder(final, (trained.folder / WEIGHTS).stat().st_size + SMALL_FILES_BYTES, replaces=True) as partial:
        repaired.save(partial, named)
        recipe = _recipe(spec, trained, certificate, way, link)
        recipe["sae_sha256"] = sha256_of(partial / WEIGHTS)
        (partial / "recipe.json").write_text(json.dumps(recipe, indent=1, ensure_ascii=False, allow_nan=False))


def _recipe(spec: Certify, trained: Trained, certificate: dict[str, Any], way: Way, link: Link) -> dict[str, Any]:
    """That of the SAE as it was, with what was measured of the best way, and with what was done to it."""
    best, before = certificate["best"], trained.recipe
    kept = {name: value for name, value in before.items() if name not in (*MEASURES, "checkpoint", "finished")}
    recipe: dict[str, Any] = kept | {name: best[name] for name in _FIGURES}
    recipe |= {"sae": spec.repaired, "job": job_number(link), "held_out_tokens": certificate["tokens"]}
    recipe["repair"] = {
        "of": spec.sae,
        "changes": best["changes"],
        "words": best["words"],
        "fvu_before": certificate["declared"]["fvu"],
        "sha256_before": certificate["sha256"]["sae"],
    }
    if way.bos and _text_begins_so(before) not in (None, way.bos == "with"):
        recipe["spec"] = recipe["spec"] | {"tokenization": None}  # it is of the other kind of text
    if way.hook:
        moved = {"hook": way.hook} | ({} if trained.sae.transcodes else {"hook_out": None})
        recipe |= {name: value for name, value in moved.items() if name in before or value}
        recipe["spec"] = recipe["spec"] | moved
        recipe["resolved"] = before["resolved"] | {"outlier_norms": None}  # they were of the other hook
    return recipe


def _text_begins_so(recipe: dict[str, Any]) -> bool | None:
    """Whether the text that it was trained on begins with BOS; None when that is not known."""
    policy = (recipe.get("tokenization") or {}).get("policy")
    return policy["bos"] is not None if policy else None


def _refuse_another(final: Path, link: Link) -> None:
    """Raises Refused when there is an SAE of that name that this very job has not written before it was cut off."""
    if not final.exists():
        return
    try:
        mine = json.loads((final / "recipe.json").read_text())["job"] == job_number(link) is not None
    except (OSError, ValueError, KeyError, TypeError):
        mine = False
    if not mine:
        raise Refused(f"there is already an SAE called {final.name}: delete it first", "repair")
