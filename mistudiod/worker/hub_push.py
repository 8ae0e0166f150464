"""Files on their way into a repository of the Hub: looked at, sent, committed once, and read back.

huggingface_hub's own calls do it, but not by xet: files are handed to it as they are read, so that how far it has come
is known. A large file that is there, committed or not, is not sent again. Where a connection is cut, the client sends
again the part that was under way (the Hub says whether a file goes in parts or whole); when it has given up, after half
a minute, or the worker dies, the file begins anew: nobody else knows what its parts were called.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import disable_progress_bars, get_session, logging

from mistudiod.worker.hub import HTTP_ERROR, answered, endpoint, page, persisted, refusal, said_by, status_of
from mistudiod.worker.hub_files import no_hub
from mistudiod.worker.link import Link, Refused

_TIMEOUT_S = 60.0  # without a byte of an answer; the Hub takes its time to put a large file together
_READ_BYTES = 1 << 20
_NO_ROOM = ("storage limit", "quota")
T = TypeVar("T")


class Outgoing(io.BufferedReader):
    """A file that is read to be sent."""

    def __init__(self, name: str, place: Path) -> None:
        super().__init__(io.FileIO(str(place)))
        self.title = name  # in the repository
        self.bytes = place.stat().st_size
        self.sha256 = ""
        self.is_sent, self.sent = False, 0  # whether reading it is sending it, and bytes that were

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        if self.is_sent:
            self.sent = max(self.sent, self.tell())
        return piece

    def hash(self, link: Link, total: int, before: int) -> None:
        """``before``: of ``total`` bytes those that other files had. Raises Asked."""
        digest = hashlib.sha256()
        while piece := self.read(_READ_BYTES):
            digest.update(piece)
            link.check()
            link.progress("hash", before + self.tell(), total, "bytes")
        self.sha256 = digest.hexdigest()
        self.seek(0)

    def operation(self) -> CommitOperationAdd:
        """One try's: what it has learnt of the repository is not asked again."""
        self.is_sent = False
        made = CommitOperationAdd(path_in_repo=self.title, path_or_fileobj=self)
        self.is_sent = True
        return made

    def is_at(self, sibling: Any) -> bool:
        """Whether what the Hub says of a file is true of this one."""
        if sibling.lfs:
            return bool(sibling.lfs.sha256 == self.sha256)
        if sibling.size != self.bytes:
            return False
        self.is_sent = False
        self.seek(0)
        found = hashlib.sha1(b"blob %d\0" % self.bytes + self.read()).hexdigest()  # as git names it
        self.seek(0)
        return bool(sibling.blob_id == found)


@contextmanager
def outgoing(files: Mapping[str, Path], link: Link) -> Iterator[list[Outgoing]]:
    """The files under the names that they are to have, open, with their hashes. Raises Asked."""
    with ExitStack() as opened:
        found = [opened.enter_context(Outgoing(name, place)) for name, place in files.items()]
        total, before = sum(one.bytes for one in found), 0
        for one in found:
            one.hash(link, total, before)
            before += one.bytes
        yield found


class Repository:
    """A repository of models that is written to. Every call raises Refused with the field ``repo``, and Asked."""

    def __init__(self, id: str, link: Link) -> None:
        self.id, self._link = id, link
        self._owner = id.partition("/")[0]
        self._account = ""
        self._token = link.secret("hf")
        if self._token is None:
            raise Refused(f"publishing needs a token of the Hub: {self._mend()}", "repo")
        self._api = HfApi(endpoint=endpoint(), token=self._token)
        disable_progress_bars()
        logging.set_verbosity_error()  # what it logs of tries names signed addresses

    def require_token(self) -> None:
        """See whose the token is, and refuse one that may only read."""
        found = self._asked(lambda: self._api.whoami(token=self._token))
        self._account = str(found.get("name") or "")
        if ((found.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
            raise Refused(f"the stored token may only read: {self._mend()}", "repo")

    def look(self, revision: str | None = None) -> Any | None:
        """What the Hub says of the repository, each file's size and hashes too; None when there is none."""

        def ask() -> Any:
            try:
                return self._api.model_info(self.id, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
            except RepositoryNotFoundError:
                return None

        return self._asked(ask)

    def make(self, private: bool) -> None:
        self._asked(lambda: self._api.create_repo(self.id, private=private, exist_ok=True))

    def send(self, files: Sequence[Outgoing], parent: str, message: str) -> str:
        """Commit the files on top of the commit ``parent``; returns the new one's sha."""
        total = sum(one.bytes for one in files)

        def commit() -> str:
            try:
                operations = [one.operation() for one in files]
                made = self._api.create_commit(self.id, operations, commit_message=message, parent_commit=parent)
            except RuntimeError as error:  # of a thread that sends a file
                raise error.__cause__ if isinstance(error.__cause__, HTTP_ERROR) else error from None
            except ValueError as error:
                raise Refused(f"{self.id} does not take it: {' '.join(str(error).split())[:300]}", "repo") from error
            return str(made.oid)

        sha = self._asked(commit, lambda: self._link.progress("upload", sum(one.sent for one in files), total, "bytes"))
        self._link.progress("upload", total, total, "bytes")
        return sha

    def _asked(self, work: Callable[[], T], tell: Callable[[], None] = lambda: None) -> T:
        def timed() -> T:
            get_session().timeout = _TIMEOUT_S
            return work()

        try:
            return answered(self._link, lambda gone: persisted(timed, gone), tell)
        except (HTTP_ERROR, OSError) as error:
            refused = self._refusal(error)
            if refused is None:
                raise
            raise Refused(refused, "repo") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(str(no_hub()), "repo") from error

    def _refusal(self, error: Exception) -> str | None:
        """The sentence for what the Hub's client raised; None for what has nothing to do with the Hub."""
        status, said = status_of(error), said_by(error)
        if status in (402, 413) or (status == 403 and any(word in said.lower() for word in _NO_ROOM)):
            return f"the Hub has no room for it ({said}): see {endpoint()}/settings/billing, then retry the job"
        if status in (403, 404) or isinstance(error, RepositoryNotFoundError):
            whose = f", of the account {self._account}," if self._account else ""
            why = (
                f" ({said})" if said and status == 403 and "create_pr" not in said else ""
            )  # nothing that is done here
            return f"the stored token{whose} may not write to {self.id}{why}: {self._mend()}"
        if status in (409, 412):
            return f"{page('model', self.id)} was changed meanwhile: retry the job, which looks at it again"
        found = refusal(error, "model", self.id, self._token)
        return str(found) if found else None

    def _mend(self) -> str:
        return (
            f"make one that may write to the repositories of {self._owner} at {endpoint()}/settings/tokens and store "
            "it with mistudio secret set hf"
        )
