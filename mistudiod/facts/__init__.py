"""What a model is, from its ``config.json`` and the headers of its weights: shapes, counts, hooks, bytes. No torch.

A folder is whatever somebody pointed at, so everything read here is checked before it is believed. Reading is for the
worker; the daemon, the planner and the client have what it found in ``model.json`` (``known_facts``).
"""

from mistudiod.facts.families import FAMILIES, UnknownModel
from mistudiod.facts.headers import Stored, parse_header, read_header, read_weights
from mistudiod.facts.hooks import POINTS, Place, UnknownHook, find_hook, hook_place, hook_widths, parse_hook
from mistudiod.facts.model import ModelFacts, check_hook, hook_names, known_facts, read_facts, weight_bytes
from mistudiod.facts.precisions import PRECISIONS, Part

__all__ = [
    "FAMILIES",
    "POINTS",
    "PRECISIONS",
    "ModelFacts",
    "Part",
    "Place",
    "Stored",
    "UnknownHook",
    "UnknownModel",
    "check_hook",
    "find_hook",
    "hook_names",
    "hook_place",
    "hook_widths",
    "known_facts",
    "parse_header",
    "parse_hook",
    "read_facts",
    "read_header",
    "read_weights",
    "weight_bytes",
]
