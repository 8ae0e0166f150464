"""Write texts with features amplified or suppressed, each beside its baseline: what a session writes, as a job."""

from __future__ import annotations

from mistudiod.specs import Steer
from mistudiod.worker.link import Link
from mistudiod.worker.loaded import Loaded
from mistudiod.worker.steering import steer
from mistudiod.worker.trained import read_recipe


def run(spec: Steer, link: Link) -> None:
    """The result is that of ``steering.steer``. Raises Refused, Asked."""
    model = read_recipe(spec.sae, link)["model"]["name"]
    loaded = Loaded(model, spec.precision, [spec.sae], link)

    def heard(tokens: int, _new: object, _end: bool) -> None:
        link.progress("write", tokens, spec.max_tokens, "tokens")

    link.result(steer(spec, loaded, None, heard))
