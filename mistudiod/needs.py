"""Which jobs a new job waits for: the unfinished ones that make what it reads."""

from __future__ import annotations

from mistudiod.errors import Conflict, Invalid, NotFound
from mistudiod.index import Index
from mistudiod.specs import Label, Score, Spec, read_by
from mistudiod.store import Jobs


async def needed(spec: Spec, kind: str, index: Index, store: Jobs) -> set[int]:
    """Raises Invalid, with the fields, for what neither is there nor will be; Conflict when no features will be."""
    jobs, missing = set(), {}
    for field, noun, name in read_by(kind, spec.model_dump()):
        try:
            await index.get(noun, name)
        except NotFound as error:
            maker = await store.maker_of(noun, name)
            if maker is None:
                now = error.message.removeprefix(f"there is no {noun} {name!r}")  # what it is called now, perhaps
                missing[field] = f"there is no {noun} named {name!r}{now}"
            else:
                jobs.add(maker)
    if missing:
        raise Invalid("; ".join(missing.values()), missing)
    if isinstance(spec, Label | Score) and await index.newest_features(spec.sae) is None:
        extracting = await store.users_of("sae", spec.sae, ("extract",))
        if not extracting:
            raise Conflict(
                f"no features of {spec.sae} have been extracted yet; run: mistudio feature extract {spec.sae}",
                {"sae": "has no features yet"},
            )
        jobs.add(max(extracting))
    return jobs
