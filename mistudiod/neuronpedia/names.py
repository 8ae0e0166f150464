"""What Neuronpedia calls things: ``{model}/{layer}-{set}[__{suffix}]/{index}``, such as ``gpt2-small/6-res-jb/650``."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_CREATOR = "clkht01d40000jv08hvalcvly"  # the user of an instance as it is installed, whose rows everybody sees
EMBEDDING = "e"  # in the place of a layer's number
_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_SET = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")
_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RELEASE = re.compile(r"[A-Za-z0-9-]+")
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_CALLED = {"gpt2": "gpt2-small"}  # there, a model that the Hub calls otherwise


@dataclass(frozen=True)
class Names:
    """Of one SAE. ``layer`` is None for the embeddings. Raises ValueError, one sentence, for a name that is none."""

    model: str
    layer: int | None
    set: str
    suffix: str | None = None

    def __post_init__(self) -> None:
        if not _MODEL.fullmatch(self.model):
            raise ValueError(
                f"{self.model!r} is no model of Neuronpedia's: lower-case letters, digits, dots, dashes and underscores"
            )
        if self.layer is not None and not 0 <= self.layer < 1000:
            raise ValueError(f"{self.layer} is no layer")
        what = f"{self.set!r} is no name of a set of sources"
        if not _SET.fullmatch(self.set) or "__" in self.set:
            raise ValueError(f"{what}: lower-case letters, digits, dashes and single underscores, such as res-16k")
        if self.set == "neurons" or re.match(r"[0-9]+-", self.set):
            raise ValueError(f"{what}: it is not 'neurons', and the layer is not a part of it")
        if self.suffix is not None and not _SUFFIX.fullmatch(self.suffix):
            raise ValueError(f"{self.suffix!r} is no suffix of a source: letters, digits, dots, dashes and underscores")

    @property
    def source(self) -> str:
        """Its id, which the table of features calls ``layer``."""
        layer = EMBEDDING if self.layer is None else self.layer
        return f"{layer}-{self.set}" + (f"__{self.suffix}" if self.suffix else "")


def parse(model: str, source: str) -> Names:
    """The parts of a source's id. Raises ValueError."""
    layer, dash, rest = source.partition("-")
    name, found, suffix = rest.partition("__")
    if not dash or not (layer == EMBEDDING or _INDEX.fullmatch(layer)):
        raise ValueError(f"{source!r} is no source: it is LAYER-SET or LAYER-SET__SUFFIX, such as 6-res-jb")
    return Names(model, None if layer == EMBEDDING else int(layer), name, suffix if found else None)


def model_called(name: str) -> str:
    """What a model of the Hub or of the studio is called there: without its owner, in lower case."""
    found = name.rpartition("/")[2].lower()
    return _CALLED.get(found, found)


def check_release(name: str) -> None:
    """Raises ValueError."""
    if not _RELEASE.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a release: letters, digits and dashes")


def index_of(value: object) -> int | None:
    """The number of a feature, which is a text in Neuronpedia's tables; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not _INDEX.fullmatch(str(value)[:20]):
        return None
    return int(value)
