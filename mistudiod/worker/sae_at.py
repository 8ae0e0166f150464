"""An SAE by NAME or NAME@STEP: what it belongs to, and, when they are wanted, its weights of then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mistudiod.about import known_as
from mistudiod.about import read as read_about
from mistudiod.engine import checkpoint
from mistudiod.engine.architectures import ARCHITECTURES
from mistudiod.engine.architectures.step import Settings, Shape
from mistudiod.engine.checkpoint import About
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.saelens_layout import ARCHITECTURES as OF_SAELENS
from mistudiod.engine.saelens_layout import read_config, shapes_of
from mistudiod.engine.trainer import under
from mistudiod.specs import Train, sae_and_step
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.read_recipe import check_weights, trained_as
from mistudiod.worker.train_begin import FORMAT
from mistudiod.worker.train_measure import CALIBRATED
from mistudiod.worker.trained import Known, know

FIELD = "saes"


@dataclass(frozen=True)
class SaeAt:
    """``shapes`` of its tensors, by name. ``step`` is that of a checkpoint, None of the SAE as it was saved."""

    called: str  # NAME or NAME@STEP
    name: str
    step: int | None
    known: Known
    config: dict[str, Any]  # cfg.json
    shapes: dict[str, tuple[int, ...]]
    link: Link

    @property
    def hook(self) -> str:
        return self.known.hook

    @property
    def hook_out(self) -> str:
        """Where what it rebuilds lies."""
        transcodes = OF_SAELENS[str(self.config["architecture"])][1]
        return self.known.hook_out if transcodes else self.known.hook

    @property
    def d_in(self) -> int:
        return self.shapes["W_enc"][0]

    @property
    def width(self) -> int:
        return self.shapes["W_dec"][0]

    @property
    def d_out(self) -> int:
        return self.shapes["W_dec"][1]

    @property
    def lacks_threshold(self) -> bool:
        """Whether its latents have competed in batches so far, so that a threshold must be found for it."""
        return self.step is not None and self.known.recipe["architecture"] in CALIBRATED

    def load(self) -> SparseAutoencoder:
        """Its weights; where it ``lacks_threshold``, with the one that training remembers. Raises Refused."""
        try:
            if self.step is None:
                sae = SparseAutoencoder.load(self.known.folder, self.known.device)
                check_weights(self.known.folder, self.known.recipe, FIELD)
                return sae
            return self._at_checkpoint(self.step)
        except ValueError as error:
            raise Refused(f"{self.called}: {error}", FIELD) from error

    def _at_checkpoint(self, step: int) -> SparseAutoencoder:
        recipe = self.known.recipe
        about = next((about for about in _kept(self) if about["step"] == step), None)
        if about is None:
            raise ValueError("this checkpoint is gone")
        number = about["saes"].index(trained_as(self.known.recipe))
        prefix = f"{number}.sae."
        folder = self.link.paths.run(recipe["job"]) / "checkpoints"
        found = checkpoint.latest(folder, lambda other: other == about, lambda name: name.startswith(prefix))
        if found is None:
            raise ValueError("this checkpoint is damaged")
        settings = Settings(k=recipe["k"], dead_after_tokens=recipe["resolved"]["dead_after_tokens"])
        shape = Shape(self.d_in, self.width, self.d_out, "W_skip" in self.shapes)
        made = ARCHITECTURES[recipe["architecture"]].init(shape, settings, 0, device=self.known.device)
        made.load_state_dict(under(prefix, found.tensors))
        scale, scale_out = about["scales"][number]
        return made.to_sae(scale, self.config.get("metadata") or {}, scale_out)


def open_sae_at(called: str, link: Link) -> SaeAt:
    """Raises Refused when there is no such SAE, or its training keeps no checkpoint of that step."""
    name, step = sae_and_step(called)
    known = know(name, link, FIELD)
    at = known.folder / "cfg.json"
    try:
        config = read_config(at)
        shapes = shapes_of(config, str(at))
    except ValueError as error:
        raise Refused(str(error), FIELD) from error
    found = SaeAt(called, name, step, known, config, shapes, link)
    if step is not None:
        _check_step(found, step)
    return found


def _check_step(sae: SaeAt, step: int) -> None:
    """Raises Refused, naming the steps that there are."""
    if sae.known.recipe.get("job") is None or "imported" in sae.known.recipe:
        raise Refused(f"{sae.name} was not trained here, so it has no checkpoints: leave out @{step}", FIELD)
    kept = sorted({about["step"] for about in _kept(sae)})
    if not kept:
        raise Refused(f"{sae.name} has no checkpoints any more: they went with its job; leave out @{step}", FIELD)
    if step not in kept:
        steps = ", ".join(map(str, kept[-20:]))
        raise Refused(
            f"{sae.name} has no checkpoint of step {step}; there is {'one' if len(kept) == 1 else 'one each'} of "
            f"{steps}. A training keeps more with --keep-checkpoints",
            FIELD,
        )


def _kept(sae: SaeAt) -> list[About]:
    """What the checkpoints say that have this SAE, as this version writes them."""
    return [
        about
        for about in checkpoint.abouts(sae.link.paths.run(sae.known.recipe["job"]) / "checkpoints")
        if about.get("made_of", {}).get("format") == FORMAT and trained_as(sae.known.recipe) in about["saes"]
    ]


def lineage(a: SaeAt, b: SaeAt) -> str | None:
    """Why rows of the same number are the same latent: "training", "extended", "beginning"; None where they are not.

    Two have one beginning when they were trained with one seed and width on the same hooks: their decoders began alike.
    """
    if a.name == b.name:
        return "training"
    if a.width != b.width or a.d_out != b.d_out:
        return None
    if _is_extended_by(a, b) or _is_extended_by(b, a):
        return "extended"
    began = [(found.hook, found.hook_out, _seed(found)) for found in (a, b)]
    return "beginning" if began[0] == began[1] and None not in began[0] else None


def _is_extended_by(a: SaeAt, b: SaeAt) -> bool:
    recipe, extends = a.known.recipe, b.known.recipe.get("extends") or {}
    names = known_as(a.name, {**recipe, **read_about(a.known.folder)})
    return "job" in extends and recipe.get("job") == extends["job"] and extends["sae"] in names


def _seed(sae: SaeAt) -> int | None:
    try:
        return Train.model_validate(sae.known.recipe["spec"]).saes()[0].seed
    except (KeyError, ValueError):  # brought in, or of another version
        return None
