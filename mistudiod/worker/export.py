"""Write an SAE as another library reads it, into ``exports/<sae>-<format>/``."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from mistudiod.specs import Export
from mistudiod.worker.card import card
from mistudiod.worker.export_neuronpedia import write_dashboards, write_neuronpedia
from mistudiod.worker.link import Link
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.shared import CARD, Shared, open_shared, write_layout

_NUMBER_BYTES, _TEXT_BYTES, _LABEL_BYTES = 4, 1 << 20, 4 << 10
_BLOCK_BYTES = 1 << 20
_OF_FEATURES = {"neuronpedia": write_neuronpedia, "saedashboard": write_dashboards}  # the others are of weights
_AT = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can have: the same SAE gives the same bytes


def run(spec: Export, link: Link) -> None:
    """The folder is there whole, in the place of one of that name, or not at all. Raises Refused.

    The result says its path, its files and what was folded, renamed or has no place there.
    """
    shared = open_shared(spec.sae, link.given()["labels"], link)
    final = link.paths.exports / f"{spec.sae}-{spec.format}"
    if spec.format in _OF_FEATURES:
        notes = _OF_FEATURES[spec.format](shared, final, link)
    else:
        with new_folder(final, _bytes(shared, spec.format == "zip"), replaces=True) as partial:
            notes = _write(shared, spec.format, partial, link)
    files = sorted(path.relative_to(final).as_posix() for path in final.rglob("*") if path.is_file())
    link.result(
        {
            "sae": spec.sae,
            "format": spec.format,
            "export": final.name,
            "path": str(final),
            "files": files,
            "bytes": sum((final / file).stat().st_size for file in files),
            "notes": notes,
        }
    )


def _write(shared: Shared, layout: str, folder: Path, link: Link) -> list[str]:
    link.progress("write", 0, 1)
    link.check()
    zipped = layout == "zip"
    inside = folder / shared.name if zipped else folder
    notes = write_card_too(shared, "saelens" if zipped else layout, inside)
    if zipped:
        _zip(inside, folder / f"{shared.name}.zip", link)
        shutil.rmtree(inside)
    link.progress("write", 1, 1)
    return notes


def write_card_too(shared: Shared, layout: str, folder: Path) -> list[str]:
    """Fill a folder with an SAE, its labels and its card. Returns what is to be said of it."""
    folder.mkdir(exist_ok=True)
    notes = write_layout(shared, layout, folder)
    (folder / CARD).write_text(card(shared, layout, notes), encoding="utf-8")
    return notes


def _zip(folder: Path, to: Path, link: Link) -> None:
    """One file of a folder, which is the only one in it; weights do not get smaller, so nothing is compressed."""
    with zipfile.ZipFile(to, "x", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            about = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}", _AT)
            about.external_attr = 0o644 << 16
            about.file_size = path.stat().st_size  # so that one over 4 GB has room for its size
            with path.open("rb") as file, archive.open(about, "w") as into:
                while block := file.read(_BLOCK_BYTES):
                    link.check()
                    into.write(block)


def _bytes(shared: Shared, zipped: bool) -> int:
    """What the folder takes at most while it is written."""
    sae = shared.sae
    numbers = (sae.d_in + sae.d_out + 4) * sae.d_sae + sae.d_out * (1 + sae.d_in * (sae.W_skip is not None))
    each = _NUMBER_BYTES * numbers + _LABEL_BYTES * len(shared.labels) + _TEXT_BYTES
    return (1 + zipped) * each
