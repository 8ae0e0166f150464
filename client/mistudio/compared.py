"""What comparing SAEs has found, as a person reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mistudio import human, output

Json = Mapping[str, Any]
_LISTED = 5  # features of each list
_FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "FVU": ("fvu", lambda x: human.number(x, 3)),
    "L0": ("l0", lambda x: human.number(x, 1)),
    "COSINE": ("cosine", lambda x: human.number(x, 3)),
    "ΔCE": ("ce_delta", lambda x: human.number(x, 3)),
    "CE RECOVERED": ("ce_recovered_zero", human.share),
    "KL": ("kl", lambda x: human.number(x, 3)),
    "ALIVE": ("alive", human.share),
    "DENSE": ("dense", human.share),
}
_LINEAGES = {
    "training": "of one training",
    "extended": "of one training, that was gone on with",
    "beginning": "began alike, with one seed",
}


def show_compared(result: Json) -> None:
    """A column for each SAE, what the differences mean, then what each pair has in common."""
    saes = result["saes"]
    rows = [
        [title, *(_with_interval(one["figures"].get(name), shown) for one in saes)]
        for title, (name, shown) in _FIGURES.items()
    ]
    output.table(["", *(one["sae"] for one in saes)], rows)
    output.text(_text_of(result))
    for note in result["notes"]:
        output.text(note)
    for pair in result["pairs"]:
        _show_pair(pair)
    if result["verdict"]:
        output.text("")
        for sentence in result["verdict"]:
            output.text(sentence)


def _text_of(result: Json) -> str:
    documents = f"{human.count(result['documents'])} {result['unit']}s"
    about = f"on {human.count(result['tokens'])} held-out tokens of {result['tokenization']}, {documents}"
    loss = f"; ΔCE and KL on {human.count(result['ce_tokens'])}, in nats" if result["ce_tokens"] else ""
    return f"{about}{loss}; in brackets 95 % intervals by {result['unit']}"


def _with_interval(found: Json | None, shown: Callable[[float], str]) -> str:
    if not found or found["value"] is None:
        return human.UNKNOWN
    if found["interval"] is None:
        return shown(found["value"])
    low, high = map(shown, found["interval"])
    return f"{shown(found['value'])} ({low} – {high})"


def _show_pair(pair: Json) -> None:
    output.text("")
    for sentence in pair["verdict"]:
        output.text(sentence)
    for line in [*_matching(pair), *_moved(pair)]:
        output.text(line)


def _matching(pair: Json) -> Iterator[str]:
    found = pair["matching"]
    if found is None:
        return
    for here, there, side in ((pair["a"], pair["b"], found["a_in_b"]), (pair["b"], pair["a"], found["b_in_a"])):
        random = side["random"]
        yield (
            f"  of {here}'s {human.count(side['alive'])} alive features {human.share(side['matched'])} are in {there} "
            f"(cosine above 0.7), {human.share(side['closely'])} closely (0.9); best cosine "
            f"{human.number(side['mean'], 2)} on average, at random {human.number(random['mean'], 2)}"
        )
    yield (
        f"  {human.count(found['pairs'])} pairs are each other's best, {human.count(found['pairs_matched'])} of them "
        f"above 0.7, {human.count(found['pairs_closely'])} above 0.9"
    )
    for here, side in ((pair["a"], found["a_in_b"]), (pair["b"], found["b_in_a"])):
        if side["unmatched"]:
            yield f"  fire most and are only in {here}: {_features(side['unmatched'], 'density')}"


def _moved(pair: Json) -> Iterator[str]:
    found = pair["moved"]
    if found is None:
        return
    mean, median = (human.number(found[name], 3) for name in ("mean", "median"))
    died, born = (human.count(found[name]) for name in ("died", "born"))
    yield (
        f"  {_LINEAGES[found['lineage']]}: row by row, {human.count(found['alive_in_both'])} features alive in both "
        f"have turned to a cosine of {mean} on average (median {median}); "
        f"{died} are alive in {pair['a']} alone, {born} in {pair['b']} alone"
    )
    if found["changed"]:
        changed = ", ".join(
            f"{one['feature']} ({human.number(one['cosine'], 2)})" for one in found["changed"][:_LISTED]
        )
        yield f"  turned most, with cosine: {changed}"


def _features(some: Sequence[Json], by: str) -> str:
    return ", ".join(f"{one['feature']} ({human.density(one[by])})" for one in some[:_LISTED])
