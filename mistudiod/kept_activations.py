"""Activations that are kept on disk: whose they are, where they lie, how large they are, and how many are there.

Standard library only: the planner counts them, ``engine.activation_store`` reads and writes them. A folder holds

- ``manifest.json``: what the values belong to;
- ``values.bin``: a record for each window, at its own place; a sparse file, of full length from the start;
- ``windows.bits``: a bit for each window, set once its record is on the disk (the lowest bit of a byte first);
- ``lock``: held by the process that writes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Form = Literal["bf16", "int8"]
MANIFEST, VALUES, BITS, LOCK = "manifest.json", "values.bin", "windows.bits", "lock"
_FORMAT = 1
_SCALE_BYTES = 4  # float32, one for each token


@dataclass(frozen=True)
class Kept:
    """Activations of all windows of a tokenization, train and held-out, at one hook of one model."""

    model: str  # model_key of its folder
    precision: str
    tokenization: str  # tokenization_key of its tokenization.json
    hook: str
    form: Form
    windows: int
    context: int
    width: int

    @property
    def key(self) -> str:
        """The name of the folder."""
        return _digest(self.belongs_to)[:20]

    @property
    def belongs_to(self) -> dict[str, Any]:
        return {"format": _FORMAT, **asdict(self)}

    @property
    def window_bytes(self) -> int:
        """bf16: (context, width); int8: (context, width), then the scales (context,)."""
        return self.context * (2 * self.width if self.form == "bf16" else self.width + _SCALE_BYTES)

    @property
    def bytes(self) -> int:
        """Of the values once all windows are there."""
        return self.windows * self.window_bytes

    def folder(self, root: Path) -> Path:
        """``root``: ``paths.Paths.activations``."""
        return root / self.key


def windows_there(folder: Path, kept: Kept) -> int:
    """How many windows ``folder`` has; 0 when there is none, or it is damaged or of something else."""
    bits = read_bits(folder, kept)
    return int.from_bytes(bits, "little").bit_count() if bits else 0


def read_bits(folder: Path, kept: Kept) -> bytes | None:
    """``windows.bits`` of ``folder``; None when the folder does not hold what ``kept`` says, or not whole."""
    try:
        belongs_to = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["belongs_to"]
        size = (folder / VALUES).stat().st_size
        bits = (folder / BITS).read_bytes()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = belongs_to == kept.belongs_to and size == kept.bytes and len(bits) == (kept.windows + 7) // 8
    return bits if whole else None


def model_key(folder: Path) -> str:
    """Names the weights in a model's folder by their files' places, sizes and times, and its config; reads no weights.

    Raises OSError.
    """
    files = sorted(folder.glob("*.safetensors"))
    stats = [[file.name, str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return _digest([stats, hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()])


def tokenization_key(folder: Path) -> str:
    """Names the windows in a tokenization's folder: by its fingerprint, or by the file where it has none.

    Raises OSError and ValueError.
    """
    facts = json.loads((folder / "tokenization.json").read_text(encoding="utf-8"))
    shape = [facts["context"], facts["train_windows"], facts["held_out_windows"]]
    if isinstance(facts.get("fingerprint"), str):
        return _digest([facts["fingerprint"], shape])
    tokens = (folder / "tokens.bin").resolve()
    return _digest([facts, str(tokens), tokens.stat().st_size, tokens.stat().st_mtime_ns])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
