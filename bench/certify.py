"""Whether certifying finds what was meant: ``python bench/certify.py``, half an hour on two cores.

Small SAEs of several kinds are trained for seconds on ``builtin:pico`` at several hooks, with BOS before the text and
without it. Each is certified as it is, and in every way in which what it says can be wrong and still be read: another
hook of the same width, BOS the other way round, b_dec, a scale or a norm folded or not, a threshold on another scale,
matrices the other way round. Counted is how many of the right ones hold, and of how many wrong ones the mistake is
found by its name; with an L0 on the card, as those that are published have it, and without.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from material import PICO, make, model_folder
from torch import Tensor

from mistudiod.engine.calibrate import calibrated
from mistudiod.engine.certify import Bench, Body, Declared, Outcome, certify
from mistudiod.engine.held_out import with_text
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.near import near_hooks
from mistudiod.engine.norms import normalized
from mistudiod.engine.rules import JumpReLURule, ReLURule, Rule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tokens import TokenWindows
from mistudiod.engine.tried import LEAST, NEARER, Difference, Tried
from mistudiod.engine.ways import Size, Way

K, STEPS, BATCH, WINDOWS = 24, 150, 768, 480


class Case(NamedTuple):
    """An SAE to train. ``width`` 192 is that of the model: only then can matrices lie the other way round."""

    hook: str
    kind: str = "topk"
    bos: bool = True
    norm: str = "none"
    centred: bool = True
    out: str | None = None  # a transcoder's
    width: int = 512

    @property
    def name(self) -> str:
        more = [f"{name} {value}" for name, value in self._asdict().items() if value != self._field_defaults.get(name)]
        return ", ".join(more)


def _cases() -> list[Case]:
    block = "blocks.3."
    post, pre, mlp, attn = (f"{block}hook_{one}" for one in ("resid_post", "resid_pre", "mlp_out", "attn_out"))
    early, first, late = "blocks.1.hook_resid_post", "blocks.0.hook_resid_pre", "blocks.5.hook_resid_post"
    return [
        *(Case(hook) for hook in (post, pre, mlp, attn, early, first, late, f"{block}attn.hook_z")),
        *(Case(hook, bos=False) for hook in (post, pre, mlp, late)),
        *(Case(hook, "jumprelu") for hook in (post, mlp, late)),
        *(Case(hook, "jumprelu", bos=False) for hook in (pre, attn, early)),
        *(Case(hook, "standard") for hook in (post, mlp)),
        Case(post, norm="layer_norm"),
        Case(post, norm="constant_norm_rescale"),
        Case(pre, centred=False),
        Case(post, "jumprelu", centred=False),
        Case(post, width=192),
        Case(mlp, "jumprelu", width=192),
        Case(f"{block}mlp.hook_in", out=mlp),
        Case(f"{block}mlp.hook_in", "jumprelu", out=mlp),
    ]


class Wrong(NamedTuple):
    """What an SAE says that is not so, and the way that is to be found."""

    said: str
    declared: Declared
    meant: Way


def trained(case: Case, x: Tensor, y: Tensor) -> SparseAutoencoder:
    """A small SAE of activations, by automatic differentiation."""
    s, s_out = (1.0 if case.norm != "none" else one.shape[1] ** 0.5 / one.norm(dim=1).mean().item() for one in (x, y))
    random = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(case.width, y.shape[1], generator=random), dim=1)
    b_dec = normalized(case.norm, y * s_out).mean(0)
    W_enc, b_enc = W_dec.t().clone(), torch.zeros(case.width)
    if not case.centred and case.out is None:
        b_enc = -b_dec @ W_enc
    centred = case.centred and case.out is None
    weights = [one.requires_grad_() for one in (W_enc, b_enc, W_dec, b_dec)]
    adam = torch.optim.Adam(weights)
    for step in range(STEPS):
        adam.param_groups[0]["lr"] = 2e-3 * min(1, (STEPS - step) / (0.3 * STEPS), (step + 1) / 20)
        some = torch.randint(len(x), (BATCH,), generator=random)
        read, aim = normalized(case.norm, x[some] * s), normalized(case.norm, y[some] * s_out)
        pre = ((read - b_dec) if centred else read) @ W_enc + b_enc
        z, penalty = _latents(case.kind, pre), 0.3 * W_dec.norm(dim=1) if case.kind == "standard" else None
        loss = (z @ W_dec + b_dec - aim).square().sum(1).mean()
        loss = loss if penalty is None else loss + (z * penalty).sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    rules: dict[str, Rule] = {"topk": TopKRule(K), "standard": ReLURule()}
    rule = rules.get(case.kind, JumpReLURule(torch.zeros(case.width)))
    W_enc, b_enc, W_dec, b_dec = (one.detach() for one in weights)
    sae = SparseAutoencoder(W_enc * s, b_enc, W_dec / s_out, b_dec / s_out, rule, centred=centred,
                            transcodes=case.out is not None, norm=case.norm)  # fmt: skip
    return calibrated(sae, K, lambda: [x[:8_192]]) if case.kind == "jumprelu" else sae


def _latents(kind: str, pre: Tensor) -> Tensor:
    """As they are trained: of jumprelu the largest of the whole batch."""
    if kind == "topk":
        return TopKRule(K).latents(pre)
    latents = pre.relu()
    if kind == "standard":
        return latents
    return latents * (latents >= latents.detach().flatten().topk(K * len(pre)).values[-1])


def wrong(case: Case, sae: SparseAutoencoder, lm: LM, x: Tensor) -> Iterator[Wrong]:
    """Every way in which what it says can be wrong and still be read. ``x``: what it reads."""
    right = Declared(sae, case.hook, case.out or case.hook, case.bos)
    size, out = Size.of(x), case.out
    yield Wrong("BOS", replace(right, bos=not case.bos), Way(bos="with" if case.bos else "without"))
    for hook in near_hooks(lm.facts, case.hook):
        yield Wrong(hook, replace(right, hook=hook, hook_out=out or hook), Way(hook=case.hook))
    if out is None:
        flipped = Way(b_dec="subtracted" if sae.centred else "kept")
        yield Wrong("b_dec", replace(right, sae=replace(sae, centred=not sae.centred)), flipped)
        for norm in ("none", "layer_norm", "constant_norm_rescale"):
            if norm != case.norm and "none" in (norm, case.norm):
                yield Wrong(f"norm {norm}", replace(right, sae=replace(sae, norm=norm)), Way(normalisation=case.norm))
    if case.norm == "none" and out is None:
        for scale, factor in (
            ("sqrt_d", size.factor("sqrt_d")),
            ("undone", 1 / size.factor("sqrt_d")),
            ("one", size.factor("one")),
        ):
            other = replace(sae, W_enc=sae.W_enc / factor, W_dec=sae.W_dec * factor, b_dec=sae.b_dec * factor)
            yield Wrong(f"scale {scale}", replace(right, sae=other), Way(normalisation=scale))
    if isinstance(sae.rule, JumpReLURule):
        for way, factor in (("over_scale", size.factor("sqrt_d")), ("times_scale", 1 / size.factor("sqrt_d"))):
            other = replace(sae, rule=sae.rule.multiplied(torch.tensor(factor)))
            yield Wrong(f"threshold {way}", replace(right, sae=other), Way(threshold=way))
    if case.width == sae.d_in == sae.d_out and out is None:
        for which in ("W_enc", "W_dec", "both"):
            turned = {one: getattr(sae, one).t().contiguous() for one in ("W_enc", "W_dec") if which in (one, "both")}
            yield Wrong(f"transposed {which}", replace(right, sae=replace(sae, **turned)), Way(orientation=which))


class Lab:
    """pico, its text, and activations to train on."""

    def __init__(self, data: Path, tokens: int) -> None:
        self.lm = load_lm(model_folder(data, PICO))
        self._windows = TokenWindows(data / "tokens" / PICO.name)
        self._body = Body(self._windows, True, self.lm.facts.context - 1)
        held = np.arange(self._windows.train, self._windows.train + self._windows.held_out)
        self._numbers = with_text(self._windows, held, tokens)[0].astype(np.int64)

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def activations(self, hook: str, bos: bool) -> Tensor:
        """Of training text, (n, width), without outliers."""
        body = self._body.led_by(self.lm.leading if bos else None)
        numbers, found = np.random.default_rng(0).permutation(self._windows.train)[:WINDOWS], []
        for some in np.array_split(numbers, 30):
            rows = body.rows(some)
            text = torch.from_numpy(~body.special_mask(rows))
            found.append(self.lm.activations(torch.from_numpy(rows), hook)[text].bfloat16().float())
        return torch.cat(found)

    def read(self, case: Case) -> tuple[Tensor, Tensor]:
        x, y = self.activations(case.hook, case.bos), self.activations(case.out or case.hook, case.bos)
        kept = x.norm(dim=1) <= 10 * x.norm(dim=1).median()
        return x[kept], y[kept]

    def bench(self, declared: Declared) -> Bench:
        return _Remembers(self.lm, self._body, self._numbers, declared, lambda _: None)


class _Remembers(Bench):
    """Measures each way once, however often it is asked."""

    def measured(self, ways: Sequence[Way]) -> list[Tried]:
        known: dict[Way, Tried] = self.__dict__.setdefault("_known", {})
        new = [way for way in ways if way not in known]
        known.update(zip(new, super().measured(new) if new else (), strict=True))
        return [known[way] for way in ways]


def same(found: Way, meant: Way) -> bool:
    """A block's output is the next one's input."""
    return _plain(found) == _plain(meant)


def _plain(way: Way) -> Way:
    if not way.hook or not way.hook.endswith("hook_resid_pre"):
        return way
    layer = int(way.hook.split(".")[1])
    return replace(way, hook=f"blocks.{layer - 1}.hook_resid_post") if layer else way


def run(lab: Lab, cases: list[Case], folder: Path) -> dict[str, int]:
    counts = dict.fromkeys(("right", "right kept", "makes no difference"), 0)
    for name in ("wrong", "without L0"):
        counts |= dict.fromkeys((name, f"{name} found", f"{name} nearly as good"), 0)
    for case in cases:
        began, x_y = time.monotonic(), lab.read(case)
        trained(case, *x_y).save(folder / "sae")
        sae = SparseAutoencoder.load(folder / "sae")
        right = Declared(sae, case.hook, case.out or case.hook, case.bos)
        bench = lab.bench(right)
        outcome = certify(bench, None)
        one, l0 = outcome.declared, outcome.declared.l0
        print(f"{case.name}: FVU {one.fvu:.3f}, L0 {l0:.1f}, {time.monotonic() - began:.0f} s", flush=True)
        for said, l0_said in (
            ("without L0", None),
            ("with L0", l0),
            ("with twice its L0", 2 * l0),
            ("with half", l0 / 2),
        ):
            found = certify(bench, l0_said)
            counts["right"] += 1
            counts["right kept"] += found.best is found.declared
            if found.best is not found.declared:
                print(f"  RIGHT, {said} said, yet: {_told(found)}", flush=True)
        for mistake in wrong(case, sae, lab.lm, x_y[0]):
            bench = lab.bench(mistake.declared)
            for name, l0_said in (("wrong", l0), ("without L0", None)):
                found = certify(bench, l0_said)
                if name == "wrong" and not _matters(found, mistake.meant):
                    counts["makes no difference"] += 1
                    break
                counts[name] += 1
                hit = same(found.best.way, mistake.meant)
                counts[f"{name} found"] += hit
                alike = not hit and any(same(one.way, mistake.meant) for one in found.alike)
                counts[f"{name} nearly as good"] += alike
                if not hit:
                    meant = next((one for one in found.tried if same(one.way, mistake.meant)), None)
                    truth = f"; meant FVU {meant.fvu:.3f}, L0 {meant.l0:.1f}" if meant else ""
                    print(f"  {mistake.said} {name}{', nearly as good' * alike}: {_told(found)}{truth}", flush=True)
    return counts


def _matters(found: Outcome, meant: Way) -> bool:
    """Whether what is said wrongly changes anything: top-k SAEs may read what is scaled, embeddings know no BOS."""
    truth = next((one for one in found.tried if same(one.way, meant)), None)
    return (
        truth is None
        or abs(Difference.between(truth, found.declared).log) > LEAST
        or truth.offset < found.declared.offset * NEARER
    )


def _told(found: Outcome) -> str:
    change = Difference.between(found.best, found.declared)
    return (
        f"declared FVU {found.declared.fvu:.3f}, L0 {found.declared.l0:.1f}; {found.best.way.words} "
        f"FVU {found.best.fvu:.3f}, L0 {found.best.l0:.1f}, {change.log:+.3f} ± {change.error:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="where model and text are, or are made; else a temporary folder")
    parser.add_argument("--tokens", type=int, default=4_096, help="held-out tokens of a certification")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of cases")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = asked.data or Path(folder)
        if not (data / "tokens" / PICO.name).exists():
            make(data, PICO)
        cases = [case for number, case in enumerate(_cases()) if not asked.only or number in asked.only]
        counts = run(Lab(data, asked.tokens), cases, Path(folder))
    json.dump(counts, sys.stdout)
    print()


if __name__ == "__main__":
    main()
