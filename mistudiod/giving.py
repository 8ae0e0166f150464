"""What a job of labelling or scoring is given: whom it asks, with which prompt, about which features; and its lane.

A job that publishes an SAE is given what its features are called, and one that uploads them the address too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mistudiod import pages as stores
from mistudiod.database import Database
from mistudiod.endpoints import Endpoint, missing
from mistudiod.errors import Conflict, Invalid, NotFound, StoreError, StudioError
from mistudiod.index import Artifact, Index
from mistudiod.jobs import LIVE
from mistudiod.labels import Labels
from mistudiod.own_address import is_this_machine
from mistudiod.records import read_used, write_given
from mistudiod.specs import KINDS, LANES, Label, Score, Spec
from mistudiod.statements import told
from mistudiod.templates import Template, Templates

KINDS_OF_LABELS = ("label", "score")
KINDS_WITH_LABELS = ("export", "push", "upload")
_LOOK_UP_S = 3.0  # for the address of a host nearby
log = logging.getLogger("mistudiod.giving")


class Store(Protocol):
    """Of a feature store what is needed here."""

    @property
    def manifest(self) -> Mapping[str, Any]: ...

    @property
    def d_sae(self) -> int: ...

    def order(self, key: str) -> Sequence[int]: ...

    def page(self, index: int) -> dict[str, Any]: ...


class Places(Protocol):
    """Of the settings what is needed here."""

    @property
    def known_endpoints(self) -> Mapping[str, Endpoint]: ...

    @property
    def neuronpedia(self) -> Endpoint: ...


class NotGiven(StudioError):
    """What a job needs is not there any more."""

    status, code = 409, "invalid"


@dataclass(frozen=True)
class Given:
    """``endpoint``: ``{"name", "url", "on_this_machine", "secret"}``, the last the name of its key. ``features``: what
    is left, ``[{"index", "label"}]``, with ``"methods"`` where scores are.
    """

    extraction: str
    store: Store
    endpoint: dict[str, Any] | None
    template: Template | None
    features: list[dict[str, Any]]

    def about(self) -> dict[str, Any]:
        """What the worker reads."""
        template = self.template
        shown = {"name": template.name, "text": template.text, "sha256": template.sha256} if template else None
        about = {"extraction": self.extraction, "endpoint": self.endpoint, "template": shown}
        return {**about, "features": self.features}


class Giving:
    """``open_store`` reads a feature store, in a thread; it raises ValueError when the store is damaged.

    ``places``: as the settings have them at the moment.
    """

    def __init__(
        self,
        database: Database,
        index: Index,
        labels: Labels,
        templates: Templates,
        places: Callable[[], Places],
    ) -> None:
        self._database, self._index, self._labels = database, index, labels
        self._templates, self._places = templates, places
        self.open_store: Callable[[Path], Store] = stores.Pages

    # -- at submission -------------------------------------------------------------------------------------------

    async def admit(self, spec: Spec) -> str | None:
        """The lane of a new job, None where its kind says it: ``gpu`` for one whose endpoint works on this machine, so
        that it never meets a training in memory. Raises Invalid, with the field, for what cannot be given.
        """
        if not isinstance(spec, Label | Score):
            return None
        self._require_endpoint(spec)
        try:
            await self._template(spec)
        except NotFound as error:
            raise Invalid(error.message, error.fields) from None
        artifact = await self._index.newest_features(spec.sae)
        if artifact is not None:
            _check_range(spec, artifact.get("d_sae"))
        return await self._lane(spec)

    def _require_endpoint(self, spec: Label | Score) -> None:
        """Raises Invalid for one that the settings do not have."""
        known = self._places().known_endpoints
        if spec.asks is not None and spec.asks not in known:
            raise Invalid(missing(spec.asks, known), {"endpoint": "is not in the setting endpoints"})

    async def _lane(self, spec: Label | Score) -> str:
        endpoint = await self.endpoint(spec)
        return "gpu" if endpoint and endpoint["on_this_machine"] and not spec.share_gpu else LANES[spec.kind]

    # -- at each start -------------------------------------------------------------------------------------------

    async def write(self, job: Mapping[str, Any], run: Path) -> str | None:
        """Let a run folder say what a job of labels has still to do, or which labels it is to publish.

        Returns the name of the key of the endpoint that it is to ask: this very one, whatever the settings say by the
        time when its worker starts. Raises NotGiven, OSError.
        """
        if job["kind"] in KINDS_WITH_LABELS:
            wanted = job["spec"].get("labels", True)
            labels = await self._labels.shown(job["spec"]["sae"]) if wanted else []
            where = {"url": self._places().neuronpedia.url} if job["kind"] == "upload" else {}
            await asyncio.to_thread(write_given, run, {"labels": labels, **where})
        if job["kind"] not in KINDS_OF_LABELS:
            return None
        try:
            spec = spec_of(job)
        except ValueError:
            raise NotGiven("the job is of another version of the studio: submit it again") from None
        try:
            given = await self.given(spec, job["id"])
        except StoreError:
            raise
        except StudioError as error:
            raise NotGiven(error.message) from None
        used = await asyncio.to_thread(read_used, run)
        await asyncio.to_thread(write_given, run, {**given.about(), "used": used})
        return given.endpoint["secret"] if given.endpoint else None

    async def given(self, spec: Label | Score, job: int | None = None) -> Given:
        """``job``: whose; None: it is yet to be. Raises Invalid, NotFound, Conflict."""
        self._require_endpoint(spec)
        template = await self._template(spec)
        sae, artifact = await self._extraction(spec.sae)
        try:
            store, features = await asyncio.to_thread(self._read, Path(artifact["folder"]), spec)
        except (OSError, ValueError) as error:
            raise Conflict(f"the features of {spec.sae} cannot be read: {error}; extract them again") from None
        _check_made_of(sae, artifact["name"], store)
        left = await self._labels.todo(spec, features, job)
        extraction = artifact["name"].rpartition("/")[2]
        return Given(extraction, store, await self.endpoint(spec), template, left)

    async def endpoint(self, spec: Label | Score) -> dict[str, Any] | None:
        found = self._places().known_endpoints.get(spec.asks or "")
        if found is None:
            return None
        here = await is_here(found)
        return {"name": found.name, "url": found.url, "on_this_machine": here, "secret": found.secret_name}

    async def _extraction(self, sae: str) -> tuple[Artifact, Artifact]:
        found = await self._index.get("sae", sae)
        artifact = await self._index.newest_features(sae)
        if artifact is None:
            raise Conflict(f"no features of {sae} have been extracted yet; run: mistudio feature extract {sae}")
        return found, artifact

    async def _template(self, spec: Label | Score) -> Template | None:
        if not isinstance(spec, Label) or spec.asks is None:
            return None
        return await asyncio.to_thread(self._templates.get, spec.template)

    def _read(self, folder: Path, spec: Label | Score) -> tuple[Store, list[int]]:
        store = self.open_store(folder)
        _check_range(spec, store.d_sae)
        if spec.features is not None:
            return store, list(dict.fromkeys(spec.features))
        alive = store.order("typical")[: store.d_sae - store.manifest["dead"]]  # those that never fire are last
        return store, list(alive if spec.top is None else alive[: spec.top])

    # -- when the daemon starts, and when the setting has changed ------------------------------------------------

    async def put_in_lanes(self) -> None:
        """Let every job that does not run be in its lane: the endpoints may be others now, or a job was read back from
        its folder.
        """
        query = "select id, kind, lane, spec from jobs where kind in ('label', 'score') and state != 'done'"
        rows = await self._database.read(lambda db: db.execute(query).fetchall())
        lanes = {}
        known: dict[tuple[object, ...], str] = {}  # looking up a host's address may take seconds
        for row in rows:
            try:
                spec = spec_of({"kind": row["kind"], "spec": json.loads(row["spec"])})
            except ValueError:  # the spec is of another version; it says so when its turn comes
                continue
            key = row["kind"], spec.asks, spec.share_gpu
            lane = known[key] = known.get(key) or await self._lane(spec)
            if lane != row["lane"]:
                lanes[row["id"]] = lane
        if lanes:
            await self._database.write(lambda db: _move(db, lanes))


def _move(db: sqlite3.Connection, lanes: Mapping[int, str]) -> None:
    live = ", ".join(f"'{state.value}'" for state in LIVE)
    for job, lane in lanes.items():
        moved = db.execute(f"update jobs set lane = ? where id = ? and state not in ({live})", (lane, job))
        if moved.rowcount:
            told(db, job)


def spec_of(job: Mapping[str, Any]) -> Label | Score:
    """Raises ValueError."""
    spec = KINDS[job["kind"]].model_validate(job["spec"])
    assert isinstance(spec, Label | Score)
    return spec


async def is_here(endpoint: Endpoint) -> bool:
    """Whether an endpoint works on this machine; one whose name cannot be looked up in time does not."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(is_this_machine, endpoint.host), _LOOK_UP_S)
    except asyncio.TimeoutError:
        log.warning("the address of the endpoint %s (%s) cannot be looked up in time", endpoint.name, endpoint.host)
        return False


def _check_made_of(sae: Artifact, extraction: str, store: Store) -> None:
    """Raises Conflict for the features of an SAE that is another by now."""
    if sae.get("width", store.d_sae) != store.d_sae:
        raise Conflict(
            f"extraction {extraction} has {store.d_sae} features, the SAE {sae['width']}: extract them again"
        )
    made_of = store.manifest.get("sae_sha256")
    if sae.get("sae_sha256", made_of) != made_of:
        raise Conflict(f"the SAE was trained further since extraction {extraction}: extract the features again")


def _check_range(spec: Label | Score, d_sae: object) -> None:
    """Raises Invalid."""
    if isinstance(d_sae, int) and spec.features and (highest := max(spec.features)) >= d_sae:
        raise Invalid(
            f"{spec.sae} has features 0 to {d_sae - 1}: there is no feature {highest}",
            {"features": f"must be 0 to {d_sae - 1}"},
        )
