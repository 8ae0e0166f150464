"""A package that is installed here, packed into a wheel again: another environment gets this very one, with no network.

The format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import zipfile
from email.parser import HeaderParser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

# What the installer of here has added; pip writes it anew, and RECORD is written below.
_OF_THE_INSTALLER = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "RECORD", "uv_cache.json"})


def pack(name: str, folder: Path) -> Path:
    """The wheel, made in ``folder``. Raises ValueError with a clause that says why when it cannot be made."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise ValueError(f"{name} is not installed here") from None
    tags = HeaderParser().parsestr(found.read_text("WHEEL") or "").get_all("Tag") or []
    files = {path: place for path, place in _files(found).items() if Path(path).name not in _OF_THE_INSTALLER}
    info = next((path.partition("/")[0] for path in files if path.partition("/")[0].endswith(".dist-info")), None)
    if not tags or info is None:
        raise ValueError(f"{name} {found.version} was not installed from a wheel")
    if missing := next((path for path, place in files.items() if not place.is_file()), None):
        raise ValueError(f"{name} {found.version} lacks its file {missing}")
    wheel = folder / f"{info.removesuffix('.dist-info')}-{_tag(tags)}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as packed:
        for path, place in files.items():
            packed.write(place, path)
        record = f"{info}/RECORD"
        packed.writestr(record, "".join(f"{_quoted(path)},,\n" for path in [*files, record]))
    return wheel


def _files(found: Distribution) -> dict[str, Path]:
    """Name in the wheel → where it lies. Scripts (``../../bin/…``) are left out: entry points make them again."""
    return {
        path.as_posix(): Path(str(path.locate()))
        for path in found.files or ()
        if path.parts[0] != ".." and "__pycache__" not in path.parts and not path.is_absolute()
    }


def _tag(tags: list[str]) -> str:
    """``cp311-cp311-manylinux1_x86_64.manylinux2014_x86_64`` of the tags that the wheel's name was taken apart into."""
    return "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*(tag.split("-", 2) for tag in tags), strict=True))


def _quoted(path: str) -> str:
    return f'"{path}"' if "," in path else path
