"""Where a published SAE comes from: a repository of the Hub, a folder, a file or an upload, and which SAE of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mistudiod.engine.formats import FolderListing, Found, Listing, find
from mistudiod.engine.formats.base import MAX_TEXT_BYTES, folder_of, one_line
from mistudiod.specs import is_sae_repo, sae_file, sae_place
from mistudiod.worker.hub_listing import CONFIGS, Repository, repository
from mistudiod.worker.licence import licence_in
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.uploaded import is_upload
from mistudiod.worker.uploaded import place as upload_place

_LISTED = 20  # SAEs in a sentence


@dataclass(frozen=True)
class SaeSource:
    """``place``: the source without what is named in it, ``path``: that, None when nothing is. ``far``: on the Hub."""

    place: str
    path: str | None
    listing: Listing
    licence: str | None
    far: Repository | None = None

    @property
    def revision(self) -> str | None:
        return self.far.revision if self.far else None

    def found(self) -> list[Found]:
        """The SAEs that are there, or at the path that is named. Raises Refused."""
        try:
            listing = self.listing if self.path is None else _Under(self.listing, self.path)
            if self.far:
                self.far.look_ahead(listing.names())
            return find(listing)
        except ValueError as error:
            raise Refused(one_line(str(error)), "source") from error
        except OSError as error:
            raise unreadable(self.place, error) from error

    def chosen(self) -> Found:
        """The only one, or the one that is named. Raises Refused with what there is."""
        found = self.found()
        named = [one for one in found if self.path is not None and one.path == self.path] or found
        if len(named) == 1:
            return named[0]
        some = ", ".join(one.path or "." for one in named[:_LISTED])
        more = f" and {len(named) - _LISTED:,} more, which a preview lists" if len(named) > _LISTED else ""
        raise Refused(
            one_line(
                f"{self.place} holds {len(named):,} SAEs{f' at {self.path}' if self.path else ''}: say which, as "
                f"{self.place}:{named[0].path or '.'}; there are {some}{more}"
            ),
            "source",
        )


def open_source(source: str, revision: str | None, link: Link) -> SaeSource:
    """Raises Refused; of the Hub no more than names and sizes is fetched."""
    place, path = sae_place(source)
    if is_sae_repo(place):
        far = repository(place, revision, link)
        return SaeSource(place, _inside(path), far, far.licence, far)
    if is_upload(place):
        listing = _folder(place, upload_place(place, link))
    else:
        place, path = sae_file(source)
        listing = _folder(place, os.path.expanduser(place))
    return SaeSource(place, _inside(path), listing, licence_in(listing.root))


class _Folder(FolderListing):
    """``root``: the folder, or the one that the file lies in."""

    def __init__(self, path: Path, source: str) -> None:
        super().__init__(path)
        self.root, self.source = (path.parent if path.is_file() else path), source


def _folder(source: str, at: str) -> _Folder:
    try:
        path = Path(at)
        if not path.is_absolute():
            raise Refused(
                one_line(f"{source} is a relative path: give the absolute path; an SAE of the Hub is owner/name"),
                "source",
            )
        if not path.exists():
            raise Refused(
                one_line(f"there is no file or folder {source}; an SAE of the Hub is named as owner/name"), "source"
            )
        return _Folder(path, source)
    except OSError as error:
        raise unreadable(source, error) from error
    except ValueError as error:  # a NUL in it, neither file nor folder, too many files
        raise Refused(one_line(str(error)), "source") from error


def _inside(path: str | None) -> str | None:
    """As readers name it: "" is all of the source."""
    if path is None:
        return None
    plain = PurePosixPath(path.strip("/")).as_posix()
    return "" if plain == "." else plain


def unreadable(source: str, error: OSError) -> Refused:
    """The sentence for a file that cannot be opened or read any more."""
    return Refused(one_line(f"cannot read {source}: {error.strerror or error}"), "source")


class _Under:
    """Of a listing one folder, or one file, with the configs of the folders that it lies in."""

    def __init__(self, listing: Listing, path: str) -> None:
        self.source, self._listing = listing.source, listing
        above = {"" if str(parent) == "." else str(parent) for parent in PurePosixPath(path).parents}
        names = listing.names()
        under = [name for name in names if not path or name == path or name.startswith(f"{path}/")]
        if not under:
            raise ValueError(f"{self.source} has no file or folder {path}")
        beside = [name for name in names if name.endswith(CONFIGS) and folder_of(name) in above]
        self._names = list(dict.fromkeys([*under, *beside]))

    def names(self) -> Sequence[str]:
        return self._names

    def size(self, name: str) -> int:
        return self._listing.size(name)

    def read(self, name: str, start: int, n: int) -> bytes:
        return self._listing.read(name, start, n)

    def text(self, name: str, limit: int = MAX_TEXT_BYTES) -> str:
        return self._listing.text(name, limit)

    def path(self, name: str) -> Path:
        return self._listing.path(name)
