"""``mistudio demo``."""

from __future__ import annotations

from typing import Any

import click

from mistudio import demo as showing
from mistudio import human, output
from mistudio.drawing import drawn
from mistudio.edits import said
from mistudio.examples import in_context
from mistudio.options import Call, Verb, pass_call
from mistudio.steered import nats
from mistudio.visible import cut, visible
from mistudio.watch import EXIT_INTERRUPTED

_LABEL_CELLS = 40
_EXAMPLE_CELLS = 56


@click.command("demo", cls=Verb)
@pass_call
def demo(call: Call) -> None:
    """Go the whole way: text, tokens, an SAE, its features with labels, and a steered text.

    Runs offline on the bundled model and Python's own sources. What is there from an earlier time is used again.
    """
    with drawn() as drawing:
        run = showing.Demo(call.client, drawing)
        try:
            found = run.run()
        except KeyboardInterrupt:
            going = f"job {', '.join(map(str, run.waiting))} goes on; " if run.waiting else ""
            drawing.note(f"{going}to come back: mistudio demo")
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    if call.json:
        output.data(found)
    else:
        _show(found, call.client.url)


def _show(found: dict[str, Any], url: str) -> None:
    sae = found["sae"]
    _show_measures(sae, found["model"])
    _show_features(found["features"])
    _show_texts(found)
    times = [f"{one['stage']} {_time(one)}" for one in found["stages"]]
    total = sum(one["seconds"] or 0 for one in found["stages"])
    output.text(f"\nTime    {', '.join(times)}; {human.duration(total)} of work")
    output.text(f"SAE     {sae['folder']}")
    output.text(f"Studio  {url}")
    amplified = said(found["steer"]["steered"][-1]["strengths"][0], sae["name"])
    output.text(
        f"Next    mistudio feature show {sae['name']} {found['feature']}\n"
        f"        mistudio feature search {sae['name']} import\n"
        f'        mistudio steer {sae["name"]} "import " -f {amplified}\n'
        f"        mistudio dataset add FOLDER; mistudio train start --help"
    )


def _show_measures(sae: dict[str, Any], model: str) -> None:
    seconds = human.duration(sae["seconds"])
    output.text(
        f"\nThe SAE {sae['name']}: {human.count(sae['width'])} latents, {sae['k']} active on a token, "
        f"at {sae['hook']} of {model}\n"
        f"  FVU {human.number(sae['fvu'])} at L0 {human.number(sae['l0'], 1)} "
        f"on {human.count(sae['held_out_tokens'])} held-out tokens (the share of variance left unexplained)\n"
        f"  beside {human.number(sae['pca_fvu'])} by PCA with as many components "
        f"and {human.number(sae['random_fvu'])} by a random dictionary\n"
        f"  {human.share(sae['alive'])} of the latents alive; {human.count(sae['tokens'])} tokens in {seconds}, "
        f"{human.count(sae['tokens_per_s'])} tokens/s"
    )


def _show_features(features: list[dict[str, Any]]) -> None:
    output.text(
        f"\n{len(features)} of its features with labels that hold: a label out of its tokens alone,\n"
        "the label's score on other text (0.5 is chance, 1 is perfect), and where the feature fires most:"
    )
    rows = [
        [
            f"{one['index']:6}", cut(visible(one["label"]["text"]), _LABEL_CELLS) if one["label"] else human.UNKNOWN,
            human.number(one["score"], 2), in_context(one["example"], _EXAMPLE_CELLS),
        ]
        for one in features
    ]  # fmt: skip
    output.table(["  FEATURE", "LABEL", "SCORE", "TEXT"], rows)


def _show_texts(found: dict[str, Any]) -> None:
    steer = found["steer"]
    output.text(f"\nAfter {steer['prompt']!r} the model writes")
    output.text(_indented(steer["baseline"]["text"]))
    for how, one in zip(("suppressed", "amplified"), steer["steered"], strict=True):
        [edit] = one["strengths"]
        output.text(
            f"with feature {found['feature']} {how}, at {edit['strength']:+g} of its largest activation "
            f"(KL {nats(one['kl'])} nats a token, {human.share(one['changed'])} of the tokens changed)"
        )
        output.text(_indented(one["text"]))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip("\n").splitlines())


def _time(stage: dict[str, Any]) -> str:
    return "reused" if stage["seconds"] is None else human.duration(stage["seconds"])
