"""The newest features of an SAE, with their labels, as the folder that Neuronpedia imports: checked, or not there.

Or as the files of SAEDashboard.
"""

from __future__ import annotations

import logging
from pathlib import Path

from mistudiod.neuronpedia import dashboard, records
from mistudiod.neuronpedia.validate import validate
from mistudiod.neuronpedia.write import write
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.neuronpedia_source import source_of
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.shared import Shared

_TIMES_PAGES = 3  # a compressed export is smaller than the pages of the store that it is made of
_TIMES_PAGES_PLAIN = 6  # one that is not compressed took 4.2 times them
log = logging.getLogger(__name__)


def write_neuronpedia(shared: Shared, final: Path, link: Link) -> list[str]:
    """Make ``final`` with ``{model}/{layer}-{set}/`` in it. Returns what is to be said of it.

    Raises Refused as ``source_of``, and when the export is not as the importer wants it; then nothing is left.
    """
    pages, about = source_of(shared, link)
    labels = {one["feature"]: one for one in shared.labels}
    needed = _TIMES_PAGES * (pages.folder / "pages.bin").stat().st_size
    with new_folder(final, needed, replaces=True) as partial:
        folder = partial / about.names.model / about.names.source
        folder.mkdir(parents=True)

        def heard(done: int) -> None:
            link.check()
            link.progress("write", done, pages.d_sae, "features")

        try:
            counts = write(folder, pages, about, labels, heard)
        except ValueError as error:
            raise Refused(f"the features of {shared.name} cannot be exported: {error}", "sae") from error
        _validate(folder, about, link)
    rows = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    return [f"It is called {about.names.model}/{about.names.source} there: {rows}.", "It breaks none of the rules."]


def write_dashboards(shared: Shared, final: Path, link: Link) -> list[str]:
    """Make ``final`` with SAEDashboard's ``{model}_{set}_{hook}_{width}/`` in it. Returns what is to be said of it.

    Raises Refused as ``source_of``.
    """
    pages, about = source_of(shared, link)
    needed = _TIMES_PAGES_PLAIN * (pages.folder / "pages.bin").stat().st_size
    with new_folder(final, needed, replaces=True) as partial:
        folder = partial / f"{about.names.model}_{about.names.set}_{about.hook}_{pages.d_sae}"
        folder.mkdir()

        def heard(done: int) -> None:
            link.check()
            link.progress("write", done, pages.d_sae, "features")

        files = dashboard.write(folder, pages, about, heard)
    return [f"{pages.d_sae:,} features in {files:,} files, without labels, for which the format has no place."]


def _validate(folder: Path, about: records.About, link: Link) -> None:
    """Raises Refused with the first of what is wrong; all of it is in the log."""

    def heard(file: str) -> None:
        link.check()
        link.progress(f"check {file.partition('/')[0]}", 0)

    found = validate(folder, about.creator, heard)
    for one in found:
        log.error("%s: %s, line %s: %s", one.rule, one.file or "the folder", one.line, one.message)
    if found:
        first, more = found[0], f", and {len(found) - 1} more in the log" if len(found) > 1 else ""
        at = f"{first.file or 'the folder'}{f', line {first.line}' if first.line else ''}"
        raise Refused(
            f"the export breaks a rule of Neuronpedia's ({first.rule}): {at}: {first.message}{more}", "format"
        )
