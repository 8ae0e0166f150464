"""Runs of steering as a worker makes them."""

from __future__ import annotations

from typing import Any

SHA = "a" * 64


def spec(prompt: str = "Once upon", **fields: Any) -> dict[str, Any]:
    return {"kind": "steer", "sae": "ok", "prompt": prompt, "steering": [{"feature": 7, "strength": 2}], **fields}


def text(sample: int, words: str, **fields: Any) -> dict[str, Any]:
    tokens = [f" {word}" for word in words.split(" ")]
    return {
        "sample": sample, "text": words, "ids": list(range(len(tokens))), "tokens": tokens, "finish": "length",
        "perplexity": 12.5, "repetition": 0.0,
        "activations": [{"sae": "ok", "feature": 7, "mean": 0.25, "max": 1.5}], **fields,
    }  # fmt: skip


def steered(sample: int, words: str, variant: int = 0, strength: float = 2.0, **fields: Any) -> dict[str, Any]:
    tokens = words.split(" ")
    return {
        **text(sample, words), "variant": variant,
        "strengths": [{"sae": "ok", "feature": 7, "op": "add", "strength": strength, "scope": "all"}],
        "kl": 0.5, "kl_tokens": [0.02 * 3 ** (n % 6) for n in range(len(tokens))], "changed": 0.5,
        "steered_activations": [{"sae": "ok", "feature": 7, "mean": 3.5, "max": 4.0}], "change_ratio": 0.125,
        "no_effect": None, **fields,
    }  # fmt: skip


def result(
    baselines: list[dict[str, Any]] | None = None, others: list[dict[str, Any]] | None = None, **fields: Any
) -> dict[str, Any]:
    baselines = baselines or [text(0, "a time there was")]
    edit = {"sae": "ok", "feature": 7, "op": "add", "strength": 2.0, "scope": "all"}
    return {
        "sae": "ok", "model": "tiny", "precision": "fp32", "device": "cpu", "prompt": "Once upon", "prompt_tokens": 3,
        "seed": 0, "edits": [{**edit, "hook": "blocks.1.hook_resid_post", "maximum": 4.5, "formula": "h += 2·4.5·d"}],
        "baseline": baselines[0], "baselines": baselines,
        "steered": others or [steered(0, "a time python was")],
        "made": {
            "mistudio": "0.1", "torch": "2.9", "transformers": "5", "python": "3.12", "model_revision": "main",
            "model_sha256": None, "sae_sha256": {"ok": SHA}, "tokenizer_sha256": "b" * 64, "threads": 1,
            "rows_at_once": 2,
        },
        "seconds": 0.5, "tokens_per_s": 16.0, **fields,
    }  # fmt: skip


def found(feature: int, **fields: Any) -> dict[str, Any]:
    """A range as calibration gives it."""
    sides = {"low": -1.5, "high": 1.25}
    kl = {"0.1": sides, "0.5": sides, "2": {"low": None, "high": 4.0}}
    breaks = {"low": None, "high": 6.0, "why": "repetition"}
    return {"feature": feature, "kl": kl, "breaks": breaks, "maximum": 4.5, "tokens": 2048, **fields}


def answer(spec: dict[str, Any], model: str) -> dict[str, Any]:
    """What the fake worker says of a run: of ``max_tokens`` words ``t0 t1 …`` in every row."""
    words = " ".join(f"t{n}" for n in range(spec["max_tokens"]))
    samples = range(spec["samples"])
    baselines = [text(n, words) for n in samples]
    others = [steered(n, words, v, 2.0 * by) for n in samples for v, by in enumerate(spec["sweep"] or [1])]
    about = {"sae": spec["sae"], "prompt": spec["prompt"] or str(spec["messages"]), "seed": spec["seed"]}
    return result(baselines, others, **about, model=model, precision=spec["precision"] or "fp32")


def calibrated(spec: dict[str, Any], model: str) -> dict[str, Any]:
    ranges = [found(feature) for feature in spec["features"]]
    return {"sae": spec["sae"], "model": model, "sae_sha256": SHA, "ranges": ranges}


ANSWERS = {"steer": answer, "calibrate": calibrated}
