"""The feature stores of an SAE, for what other work needs to know of its features."""

from __future__ import annotations

import logging
from pathlib import Path

from mistudiod.pages import Pages
from mistudiod.worker.link import Link

log = logging.getLogger(__name__)


def newest_store(sae: str, sae_sha256: str, d_sae: int, link: Link) -> Pages | None:
    """That of the newest extraction from the SAE as it is now. Damaged stores, and those that an older version made,
    are passed over, with a line in the log.
    """
    for folder in extractions(sae, link):
        try:
            pages = Pages(folder)
        except ValueError as error:
            log.warning("passed over: %s", error)
            continue
        if pages.manifest.get("sae_sha256") == sae_sha256 and pages.d_sae == d_sae:
            return pages
    return None


def extractions(sae: str, link: Link) -> list[Path]:
    """The folders of the extractions from an SAE, the newest first."""
    numbered = [path for path in (link.paths.folder("features") / sae).glob("*") if path.name.isdigit()]
    return sorted(numbered, key=lambda path: int(path.name), reverse=True)
