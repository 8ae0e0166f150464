"""The modules of a model as a tree with their parameters, blocks that are alike told once: ready for JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from mistudiod.facts.quantized import Unpacked


class Node(TypedDict):
    """A module, or a weight when it has a dtype."""

    name: str  # "0-3, 5-21" stands for so many modules that are alike
    times: int
    parameters: int  # of all of them together
    dtype: str | None  # as safetensors calls it; NF4 when packed
    shape: list[int] | None  # of a weight, unless it is packed
    children: list[Node]  # of one of them


@dataclass
class _Module:
    modules: dict[str, _Module] = field(default_factory=dict)
    weights: dict[str, Unpacked] = field(default_factory=dict)


def module_tree(weights: Mapping[str, Unpacked]) -> Node:
    """The tree of ``weights``: weights before modules, and these by their name; its root is called ""."""
    root = _Module()
    for name, weight in weights.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            module = module.modules.setdefault(part, _Module())
        module.weights[last] = weight
    return _node("", root)


def _node(name: str, module: _Module) -> Node:
    children = [_leaf(*item) for item in sorted(module.weights.items())]
    children += _told_once([_node(key, module.modules[key]) for key in sorted(module.modules, key=_order)])
    parameters = sum(child["parameters"] for child in children)
    return Node(name=name, times=1, parameters=parameters, dtype=None, shape=None, children=children)


def _leaf(name: str, weight: Unpacked) -> Node:
    shape = None if weight.shape is None else list(weight.shape)
    return Node(name=name, times=1, parameters=weight.items, dtype=weight.dtype, shape=shape, children=[])


def _number(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdigit() and len(name) < 10 and str(int(name)) == name else None


def _order(name: str) -> tuple[int, str]:
    """Numbers by their size, behind names."""
    number = _number(name)
    return (-1 if number is None else number, name)


def _told_once(modules: list[Node]) -> list[Node]:
    """Numbered modules that are alike become one node, where the first of them stands."""
    found: list[Node] = []
    groups: dict[str, tuple[Node, list[int]]] = {}
    for module in modules:
        number = _number(module["name"])
        if number is None:
            found.append(module)
            continue
        first, numbers = groups.setdefault(json.dumps(module["children"]), (module, []))
        numbers.append(number)
        if first is module:
            found.append(module)
            continue
        first["name"] = _spans(numbers)
        first["parameters"] += module["parameters"]
        first["times"] += 1
    return found


def _spans(numbers: list[int]) -> str:
    """``0-3, 5``, of numbers that rise."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return ", ".join("-".join(map(str, span)) for span in spans)
