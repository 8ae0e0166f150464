"""Put the newest features of an SAE on Neuronpedia by its own interface, request after request.

How far it has come lies in the run folder: whoever goes on with the job begins with the first request that was not
taken. Labels of features that were taken are not sent again; the others go with those of now.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mistudiod.endpoints import neuronpedia
from mistudiod.hub_cache import is_offline
from mistudiod.neuronpedia import upload
from mistudiod.neuronpedia.records import About, Label
from mistudiod.pages import Pages
from mistudiod.paths import PARTIAL
from mistudiod.specs import Upload
from mistudiod.worker.asking import run_until_asked
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.neuronpedia_api import NAME, Api, Denied
from mistudiod.worker.neuronpedia_source import source_of
from mistudiod.worker.shared import open_shared

TAKEN = "taken.json"
_SECRET = "neuronpedia"
_NOT_OURS = r"\bown|permission|belong|creator|access|not allowed|forbidden"  # words on a set of somebody else


@dataclass
class Taken:
    """What there is at ``place`` of ``extraction``: all features before ``after`` that are not dead.

    ``asked``: those before it were sent too, and no answer has come: they may be there or not.
    """

    place: str
    extraction: str
    sae_sha256: str
    after: int = 0
    asked: int = 0
    features: int = 0
    dead: int = 0
    labels: int = 0
    requests: int = 0

    def keep(self, run: Path) -> None:
        partial = run / f"{PARTIAL}{TAKEN}"
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(run / TAKEN)

    def kept(self, run: Path) -> Taken | None:
        """As an earlier worker of the job has kept it, when it was of the same features and place."""
        try:
            found = Taken(**json.loads((run / TAKEN).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        same = (found.place, found.extraction, found.sae_sha256) == (self.place, self.extraction, self.sae_sha256)
        return found if same else None


def run(spec: Upload, link: Link) -> None:
    """The result says where the features are, how many were taken, and how many are dead and have no place there."""
    given = link.given()
    url, key = str(given["url"]), link.secret(_SECRET)
    if is_offline(os.environ) and not neuronpedia(url).is_near:
        raise Refused(
            f"miStudio is offline, so nothing can be uploaded to {url}: unset the setting offline, then retry"
        )
    if key is None:
        raise Refused(f"uploading needs a key of {NAME}: make one at {url}/account and {_store_it()}")
    shared = open_shared(spec.sae, given["labels"], link)
    pages, about = source_of(shared, link)
    about = _named(about, spec)
    work = _Work(pages, about, {one["feature"]: one for one in shared.labels}, url, shared.sha256, link)
    run_until_asked(link, work.go(key), work.tell)
    taken = work.taken
    link.result(
        {
            "sae": spec.sae,
            "extraction": taken.extraction,
            "url": taken.place,
            "features": taken.features,
            "dead": taken.dead,
            "labels": taken.labels,
            "requests": taken.requests,
        }
    )


def _named(about: About, spec: Upload) -> About:
    """As the spec calls it. Raises Refused for what Neuronpedia would not take."""
    try:
        names = replace(about.names, model=spec.model_id or about.names.model, set=spec.set or about.names.set)
        found = replace(about, names=names, description=spec.description or about.description)
        upload.model(found)
        upload.source_set(found)
    except ValueError as error:
        raise Refused(f"{error}; model_id and set say what to call them there") from error
    return found


def _store_it() -> str:
    return f"store it with mistudio secret set {_SECRET}"


class _Work:
    """One upload, from where an earlier worker of the job has left it."""

    def __init__(
        self, pages: Pages, about: About, labels: Mapping[int, Label], url: str, sae_sha256: str, link: Link
    ) -> None:
        self._pages, self._about, self._labels, self._url, self._link = pages, about, labels, url, link
        begun = Taken(f"{url}/{about.names.model}/{about.names.source}", pages.folder.name, sae_sha256)
        known = begun.kept(link.run)
        self.taken = known or begun
        self._set_was_there = False

    def tell(self) -> None:
        self._link.progress("upload", self.taken.after, self._pages.d_sae, "features")

    async def go(self, key: str) -> None:
        """Raises Refused."""
        async with Api(self._url, key) as api:
            if not self.taken.after:
                await self._make(api, upload.MODEL, upload.model(self._about))
                self._set_was_there = await self._make(api, upload.SOURCE_SET, upload.source_set(self._about))
            self.taken.keep(self._link.run)
            try:
                for one in upload.features(self._pages, self._about, self._labels, self.taken.after):
                    await self._send(api, one)
            except ValueError as error:  # of a record that is damaged, or a label that is none there
                raise Refused(str(error), "sae") from error

    async def _make(self, api: Api, path: str, body: Mapping[str, object]) -> bool:
        """Whether it was there already."""
        try:
            await api.post(path, body)
        except Denied as denied:
            self._check_key(denied)
            if denied.is_there:
                return True
            raise Refused(
                f"{NAME} does not make {path.split('/')[2]} {body.get('name') or body['id']}: {denied}"
            ) from denied
        return False

    async def _send(self, api: Api, one: upload.Upload) -> None:
        if one.body is not None:
            may_be_there = self.taken.asked == one.after
            self._ask(one.after)
            try:
                await api.post(upload.FEATURES, one.body)
            except Denied as denied:
                if not (denied.is_there and (denied.unsure or may_be_there)):
                    self._ask(0)
                    raise self._refusal(denied, one) from denied
            self.taken.requests += 1
        self.taken.after = one.after
        self.taken.features += len(one.indices)
        self.taken.dead += one.dead
        self.taken.labels += sum(index in self._labels for index in one.indices)
        self.taken.keep(self._link.run)

    def _ask(self, before: int) -> None:
        """Keep that features before this one are sent, and perhaps taken; 0: none are."""
        self.taken.asked = before
        self.taken.keep(self._link.run)

    def _check_key(self, denied: Denied) -> None:
        if denied.status in (401, 403):
            raise Refused(f"{NAME} refuses the key ({denied}): {_store_it()}, then retry the job") from denied

    def _refusal(self, denied: Denied, one: upload.Upload) -> Refused:
        names = self._about.names
        foreign = denied.status in (401, 403) or re.search(_NOT_OURS, denied.words, re.IGNORECASE)
        if self._set_was_there and not self.taken.after and foreign:
            return Refused(
                f"the set {names.set} of {names.model} is there already, and is somebody else's ({denied}): choose "
                "another name with set",
                "set",
            )
        self._check_key(denied)
        if denied.status == 413:
            return Refused(
                f"a request is too large for {NAME} (413): extract the features with fewer or shorter examples"
            )
        if denied.is_there:
            return Refused(
                f"{names.source} of {names.model} has such features already ({denied}): choose another set", "set"
            )
        at = re.search(r"features\W*(\d+)", denied.path) or re.search(r"features\W*(\d+)", denied.words)
        which = one.indices[int(at[1])] if at and int(at[1]) < len(one.indices) else None
        whose = f"feature {which}" if which is not None else f"features {one.indices[0]} to {one.indices[-1]}"
        return Refused(f"{NAME} does not take {whose} of {self._pages.manifest.get('sae')}: {denied}")
