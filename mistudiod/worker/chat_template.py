"""Whether a model was made for chat, as the files of its tokenizer say it."""

from __future__ import annotations

import json
from pathlib import Path

_MOST_BYTES = 64 * 1024 * 1024  # of a file that names some tokens: whatever is larger is something else


def has_chat_template(folder: Path) -> bool:
    """In a file of its own, or in the tokenizer's config; where transformers looks for it."""
    if (folder / "chat_template.jinja").is_file():
        return True
    path = folder / "tokenizer_config.json"
    try:
        if path.stat().st_size > _MOST_BYTES:
            return False
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # no config, or none that can be read
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))
