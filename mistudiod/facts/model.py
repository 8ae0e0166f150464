"""The facts of one model: read from its folder by the worker, or known from ``model.json`` by anybody else."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from mistudiod.facts.families import FAMILIES, Family, UnknownModel
from mistudiod.facts.headers import Stored, read_json, read_weights
from mistudiod.facts.hooks import find_hook, hook_widths
from mistudiod.facts.parts import PARTS, split
from mistudiod.facts.precisions import PRECISIONS, Part
from mistudiod.facts.quantized import Unpacked, quantization, unpack
from mistudiod.facts.tree import Node, module_tree

MAX_BLOCKS = 256  # more than any model has
MAX_SIZE = 1 << 31  # of any dimension in a config
MAX_CONFIG_BYTES = 10 << 20
MAX_TREE_BYTES = 1 << 20  # as JSON; of a known model it has some 5 kB
_BUFFER = re.compile(r"(.*\.)?(attn\.bias|attention\.bias|masked_bias|inv_freq)")  # masks and tables of old checkpoints
_FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True)
class ModelFacts:
    """``dataclasses.asdict`` of it is ready for JSON; ``known_facts`` reads that again."""

    family: str  # model_type of config.json
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    vocab_size: int
    context: int  # longest sequence, in tokens
    parameters: int  # tied weights counted once, quantised ones unpacked
    dtype: str  # of the weights that are not quantised, as torch calls it
    quantized: str | None  # the precision in which the weights are stored quantised, and the only one to load them in
    size_bytes: int  # of the weight files
    weight_bytes: dict[str, int]  # of the whole model, by the precisions that it can be loaded in
    parts: dict[str, Part]  # embedding, block (the largest), norm (the last), head (nothing when tied)
    hook_widths: dict[str, int]  # by point: every block has the same
    tree: Node


def read_facts(folder: Path, far: tuple[int, dict[str, Stored]] | None = None) -> ModelFacts:
    """Read what the Hugging Face model in ``folder`` is; raises UnknownModel.

    ``far``: the bytes of its weight files and every tensor in them, where they do not lie in the folder.
    """
    try:
        return _read(folder, far)
    except OSError as error:
        raise UnknownModel(f"{error.filename or folder} cannot be read: {error.strerror or error}") from error


def known_facts(described: Mapping[str, object]) -> ModelFacts:
    """The facts in what a ``model.json`` says; raises UnknownModel when an older miStudio wrote it, or not miStudio."""
    facts = {field.name: described.get(field.name) for field in fields(ModelFacts)}
    parts, tree = facts["parts"], facts["tree"]
    if not _are_known(facts) or not isinstance(parts, dict) or not isinstance(tree, dict):
        name, source = described.get("name"), described.get("source")
        raise UnknownModel(
            f"the model {name} was added by an older miStudio, which noted less of it: remove it and add it again "
            f"(mistudio model rm {name}, then mistudio model add {source} --name {name})"
        )
    read = ModelFacts(**facts | {"parts": {name: Part(**part) for name, part in parts.items()}})  # type: ignore[arg-type]
    # which points there are depends on this version, not on that which wrote them down
    return replace(read, hook_widths=hook_widths(read.d_model, read.n_heads * read.d_head, read.d_mlp))


def _are_known(facts: Mapping[str, object]) -> bool:
    """Whether every fact is there, and of its kind."""
    parts = facts["parts"] if isinstance(facts["parts"], dict) else {}
    sizes = [facts["weight_bytes"], facts["hook_widths"]]
    sizes += [part["weight_bytes"] for part in parts.values() if _is_part(part)]
    return (
        all(isinstance(facts[field.name], int) for field in fields(ModelFacts) if field.type == "int")
        and all(isinstance(facts[field.name], str) for field in fields(ModelFacts) if field.type == "str")
        and facts.get("quantized") in (None, *PRECISIONS)
        and set(parts) == set(PARTS)
        and all(map(_is_part, parts.values()))
        and all(isinstance(one, dict) and all(isinstance(size, int) for size in one.values()) for one in sizes)
    )


def _is_part(part: object) -> bool:
    return isinstance(part, dict) and part.keys() == {"parameters", "weight_bytes"} and type(part["parameters"]) is int


def hook_names(facts: ModelFacts) -> list[str]:
    """Every hook of the model, in the order in which the values arise."""
    return [f"blocks.{layer}.{point}" for layer in range(facts.n_layers) for point in facts.hook_widths]


def check_hook(facts: ModelFacts, hook: str) -> int:
    """The width of ``hook``'s vectors; raises UnknownHook when the model has no such hook."""
    return facts.hook_widths[find_hook(hook, facts.n_layers)[1]]


def weight_bytes(facts: ModelFacts, precision: str, layers: int | None = None) -> int:
    """Bytes of the weights as ``load_lm`` holds them: of the first ``layers`` blocks without head, or of the whole.

    Raises UnknownModel when the model cannot be loaded in ``precision``.
    """
    if precision not in facts.weight_bytes:
        raise UnknownModel(f"the model is stored as {facts.quantized}: it can be loaded as that and as nothing else")
    if layers is None:
        return facts.weight_bytes[precision]
    size = {name: part.weight_bytes[precision] for name, part in facts.parts.items()}
    return size["embedding"] + layers * size["block"] + size["norm"]


def _read(folder: Path, far: tuple[int, dict[str, Stored]] | None) -> ModelFacts:
    config = _read_config(folder)
    names = _family(folder, config)
    quantized = quantization(folder, config)
    n_layers = _count(folder, config, names.n_layers, MAX_BLOCKS)
    d_model = _count(folder, config, names.d_model)
    vocab_size = _count(folder, config, "vocab_size")
    context = _count(folder, config, names.context)
    n_heads = _count(folder, config, names.n_heads)
    size_bytes, tensors = far or _weights(folder)
    weights = _parameters(config, names, unpack(folder, tensors, quantized))
    _check_embedding(folder, names, weights, (vocab_size, d_model))
    _check_blocks(folder, names, weights, n_layers)
    shapes = _Shapes(folder, names, weights, d_model, n_heads)
    parts, whole = split(names, weights, n_layers, quantized)
    return ModelFacts(
        family=str(config["model_type"]),
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=shapes.n_kv_heads,
        d_head=shapes.d_head,
        d_mlp=shapes.d_mlp,
        vocab_size=vocab_size,
        context=context,
        parameters=whole.parameters,
        dtype=_dtype(folder, config, weights),
        quantized=quantized,
        size_bytes=size_bytes,
        weight_bytes=whole.weight_bytes,
        parts=parts,
        hook_widths=hook_widths(d_model, n_heads * shapes.d_head, shapes.d_mlp),
        tree=_tree(folder, weights),
    )


def _weights(folder: Path) -> tuple[int, dict[str, Stored]]:
    files, tensors = read_weights(folder)
    return sum(file.stat().st_size for file in files), tensors


def _tree(folder: Path, weights: dict[str, Unpacked]) -> Node:
    """Raises UnknownModel for one that is too large to be answered with and shown."""
    tree = module_tree(weights)
    if len(json.dumps(tree)) > MAX_TREE_BYTES:
        raise UnknownModel(f"{folder} holds {len(weights):,} weights in modules that differ more than a known model's")
    return tree


class _Shapes:
    """Sizes that configs leave to a default which differs from family to family: the weights know them."""

    def __init__(self, folder: Path, names: Family, weights: dict[str, Unpacked], d_model: int, n_heads: int) -> None:
        self.folder, self.weights, self.d_model = folder, weights, d_model
        self.blocks = names.blocks
        self.d_head = self._size(names.attention_last, d_model * n_heads)
        self.n_kv_heads = self._size(names.keys, d_model * self.d_head) if names.keys else n_heads
        self.d_mlp = self._size(names.mlp_last, d_model)

    def _size(self, module: str, of: int) -> int:
        """How many times ``of`` numbers there are in the weight of a module of block 0."""
        name = f"{self.blocks}.0.{module}.weight"
        weight = _find(self.weights, name)
        if weight is None:
            raise UnknownModel(f"{self.folder} is not complete: its weights lack {name}")
        if weight.items == 0 or weight.items % of:
            raise UnknownModel(
                f"{self.folder} does not fit together: {name} has {weight.items:,} parameters, "
                "which does not go with the sizes in config.json"
            )
        return weight.items // of


def _read_config(folder: Path) -> dict[str, object]:
    if not folder.is_dir():
        raise UnknownModel(f"{folder} is not a folder")
    path = folder / "config.json"
    if not path.is_file():
        raise UnknownModel(f"{folder} has no config.json: give the folder of a Hugging Face model")
    return read_json(path, MAX_CONFIG_BYTES)


def _family(folder: Path, config: dict[str, object]) -> Family:
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnknownModel(
            f"{folder} holds a model of type {str(model_type)[:100]!r}, which is not known: "
            f"the known types are {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def _count(folder: Path, config: dict[str, object], key: str, most: int = MAX_SIZE) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        said = f"says {repr(value)[:100]}" if key in config else "says nothing"
        raise UnknownModel(f"{folder / 'config.json'} {said} for {key}, which must be a whole number from 1 to {most}")
    return value


def _parameters(config: dict[str, object], names: Family, tensors: dict[str, Unpacked]) -> dict[str, Unpacked]:
    """The tensors that are parameters, each once: no masks, no tables, no head that is the embedding again."""
    weights = {name: tensor for name, tensor in tensors.items() if not _BUFFER.fullmatch(name)}
    if config.get("tie_word_embeddings", names.tied) and _find(weights, names.embedding):
        weights.pop(names.head, None)
    return weights


def _find(tensors: dict[str, Unpacked], name: str) -> Unpacked | None:
    """The tensor called ``name``, whatever modules it lies in."""
    return next((tensor for full, tensor in tensors.items() if full == name or full.endswith("." + name)), None)


def _check_embedding(folder: Path, names: Family, weights: dict[str, Unpacked], shape: tuple[int, int]) -> None:
    """Config and weights of different models are found here rather than in the middle of a job."""
    found = _find(weights, names.embedding) or _find(weights, names.head)
    if found is None or found.shape != shape:
        said = "are not there" if found is None else f"have the shape {found.shape}"
        raise UnknownModel(f"{folder} does not fit together: config.json asks for embeddings of {shape}, which {said}")


def _check_blocks(folder: Path, names: Family, weights: dict[str, Unpacked], n_layers: int) -> None:
    in_block = re.compile(rf"(?:.*\.)?{names.blocks}\.([0-9]+)\..+")
    found = {match[1] for name in weights if (match := in_block.fullmatch(name))}
    if found != {str(layer) for layer in range(n_layers)}:
        raise UnknownModel(
            f"{folder} does not fit together: config.json says {n_layers} blocks, and the weights are of {len(found)}"
        )


def _dtype(folder: Path, config: dict[str, object], weights: dict[str, Unpacked]) -> str:
    stated = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    if stated in _FLOATS.values():
        return stated
    numbers: Counter[str] = Counter()
    for weight in weights.values():
        if weight.dtype in _FLOATS or not config.get("quantization_config"):
            numbers[weight.dtype] += math.prod(weight.shape or ())
    commonest = max(numbers, key=lambda dtype: numbers[dtype], default="integers")
    if commonest not in _FLOATS:
        raise UnknownModel(f"{folder} holds weights as {commonest}: give the model as it was before quantisation")
    return _FLOATS[commonest]
