"""What measuring an SAE has found, as a person reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mistudio import histograms, human, output

Found = Mapping[str, Any]
Show = Callable[[float | None], str]


def _one_digit(x: float | None) -> str:
    return human.number(x, 1)


_ROWS: dict[str, tuple[str, Show]] = {
    "FVU": ("fvu", human.number),
    "  first token of a window": ("fvu_first", human.number),
    "L0": ("l0", _one_digit),
    "ΔCE (nats)": ("ce_delta", human.number),
    "  recovered, of what the mean costs": ("ce_recovered_mean", human.share),
    "  recovered, of what zeros cost": ("ce_recovered_zero", human.share),
    "KL (nats)": ("kl", human.number),
    "cosine": ("cosine", human.number),
    "norm, of what it should be": ("l2_ratio", human.number),
    "reconstruction bias": ("bias", human.number),
    "alive": ("alive", human.share),
    "dense, on over a tenth of the tokens": ("dense", human.share),
    "cosine with the nearest decoder row": ("decoder_cosine", human.number),
    "  above 0.9": ("decoder_copies", human.share),
    "cosine with the nearest encoder column": ("encoder_cosine", human.number),
}
_UNITS = {"document": ("document", "documents"), "run": ("run of windows", "runs of windows")}
_SHORT = ("FVU", "L0", "ΔCE (nats)", "alive")


def show_evaluated(result: Found) -> None:
    """Figures with their intervals, how often latents fire, the verdict, and what it was measured on."""
    figures = result["figures"]
    beside = _baselines(result)
    rows = []
    for title, (name, show) in _ROWS.items():
        one = figures.get(name) or {}
        if one.get("value") is not None:
            rows.append([title, show(one["value"]), interval(one, show), beside.get(name, "")])
    output.table(["FIGURE", "VALUE", "95 % INTERVAL", "BASELINE"], rows)
    _show_density(result["density"])
    output.text("")
    for sentence in result["verdict"]:
        output.text(sentence)
    _show_probes(result.get("probes") or {})
    output.note(_measured_on(result))


_PROBED = {
    "1 LATENT": "latents 1",
    "1 NUMBER": "numbers 1",
    "5 LATENTS": "latents 5",
    "5 NUMBERS": "numbers 5",
    "ALL": "all",
}


def _show_probes(found: Found) -> None:
    """How often a question about the text is answered rightly by few latents, few numbers, the whole activation."""
    tasks = (found.get("probing") or {}).get("tasks") or []
    if tasks:
        rows = [
            [one["name"], *(human.share(one["accuracy"][name]["value"]) for name in _PROBED.values())] for one in tasks
        ]
        output.text("")
        output.table(["ANSWERED RIGHTLY BY", *_PROBED], rows)
    if found.get("said"):
        output.text("")
    for sentence in found.get("said") or []:
        output.text(sentence)


def show_evaluation(sae: Found) -> None:
    """What an SAE's evaluation says in short, if it has one."""
    found = sae.get("evaluation")
    if not found:
        return
    output.text("")
    text = f"on {human.count(found.get('tokens'))} tokens of {found.get('tokenization')}"
    output.text(f"evaluated {human.ago(found.get('at'))}, {text}:")
    said = []
    for title in _SHORT:
        name, show = _ROWS[title]
        one = (found.get("figures") or {}).get(name) or {}
        if one.get("value") is not None:
            between = f" ({interval(one, show)})" if one.get("interval") else ""
            said.append(f"{title} {show(one['value'])}{between}")
    output.text(", ".join(said))
    for sentence in found.get("verdict") or []:
        output.text(str(sentence))


def latest(sae: Found, name: str) -> float | None:
    """A figure of an SAE: of its evaluation where it has one, else as it was at the end of its training."""
    figures = (sae.get("evaluation") or {}).get("figures") or {}
    found: float | None = (figures.get(name) or {}).get("value")
    return sae.get(name) if found is None else found


def interval(one: Found, show: Show) -> str:
    """Of a figure ``{"value", "interval"}``: ``0.119 to 0.128``."""
    found = one.get("interval")
    return f"{show(found[0])} to {show(found[1])}" if found else human.UNKNOWN


def _baselines(result: Found) -> dict[str, str]:
    """What stands beside a figure, in words."""
    figures = result["figures"]

    def value(name: str, show: Show) -> str | None:
        found = (figures.get(name) or {}).get("value")
        return None if found is None else show(found)

    pca, random = value("pca_fvu", human.number), value("random_fvu", human.number)
    zero, mean = value("ce_zero", human.number), value("ce_mean", human.number)
    found = {}
    if pca and random:
        found["fvu"] = f"{result['components']} principal components {pca}, random directions {random}"
    if zero and mean:
        found["ce_delta"] = f"the mean in its place {mean}, zeros {zero}"
    return found


def _show_density(density: Found) -> None:
    shares = [10.0**edge for edge in density["log10_edges"]]
    lines = histograms.drawn(density["latents"], shares)
    if lines:
        output.text("")
        output.text("how many latents fire on what share of the tokens")
        for line in lines:
            output.text(f"  {line}")
    if never := density["never"]:
        output.text(f"  never on these tokens: {human.count(never)}")


def _measured_on(result: Found) -> str:
    documents, tokens = result["documents"], human.count(result["tokens"])
    of = _UNITS[documents["unit"]][documents["count"] != 1]
    losses = f", the model's loss on {human.count(result['ce_tokens'])} of them" if result.get("ce_tokens") else ""
    return (
        f"measured on {tokens} held-out tokens of {result['tokenization']}, from {human.count(documents['count'])} "
        f"{of}{losses}, in {human.duration(result.get('seconds'))}"
    )
