"""Load a language model from a folder on this machine: its precision, and only the blocks that are needed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from mistudiod.engine.hooks import capture, layers_needed, only_first
from mistudiod.engine.precision import DTYPES, as_packed, check_precision, quantization_config
from mistudiod.engine.tokens import read_vocabulary
from mistudiod.engine.weights import LazyTensor, lazy_weights
from mistudiod.facts import FAMILIES, ModelFacts, UnknownModel, check_hook, read_facts, weight_bytes

PASS_TOKENS = {"cpu": 4_096, "cuda": 16_384}  # in one forward pass: larger ones are no faster, and take memory
LOGIT_ELEMENTS = 1 << 23  # of one piece of logits: 32 MiB of float32; those of a whole text never exist
_HOW_STORED = ("bnb_4bit_quant_storage", "bnb_4bit_use_double_quant")  # the rest is ours to say
_HERE_ONLY = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class LM:
    """A language model in evaluation mode; without its head when it was loaded with ``layers``."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    facts: ModelFacts  # of the whole model, however many blocks are loaded
    device: torch.device
    precision: str  # that it was loaded in, one of facts.PRECISIONS
    leading: int | None  # the token that windows begin with which begin with BOS: EOS where there is no BOS

    def activations(self, ids: Tensor, hook: str) -> Tensor:
        """The values at ``hook`` for ``ids`` (B, T): (B, T, width), in the model's dtype, on its device.

        Runs only the blocks before the hook, and no head. Raises UnknownHook.
        """
        return self.activations_at(ids, [hook])[0]

    @torch.no_grad()
    def activations_at(self, ids: Tensor, hooks: Sequence[str]) -> list[Tensor]:
        """The same at several hooks, in one pass."""
        for hook in hooks:
            check_hook(self.facts, hook)
        n = max(map(layers_needed, hooks))
        # the input of a block that does not run is the same value, one block earlier
        ends = {f"blocks.{n}.hook_resid_pre": f"blocks.{n - 1}.hook_resid_post"}
        places = [ends.get(hook, hook) for hook in hooks]
        with only_first(self.model, n), capture(self.model, set(places)) as values:
            self.model.base_model(input_ids=ids.to(self.device), use_cache=False)
        return [values[place] for place in places]

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Of the next token, (n, vocabulary) float32, from what the head reads, (n, d_model)."""
        logits = self.model.get_output_embeddings()(hidden).float()
        cap = getattr(self.model.config, "final_logit_softcapping", None)  # Gemma 2's
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """The same as ln p. Of more than ``logit_rows`` tokens at once it would take a lot of memory."""
        return torch.log_softmax(self.logits(hidden), dim=-1)

    @property
    def logit_rows(self) -> int:
        return max(1, LOGIT_ELEMENTS // self.facts.vocab_size)

    def text_ids(self, text: str, begins_with_bos: bool = True) -> list[int]:
        """The tokens of a text, as the windows began that an SAE was trained on: with BOS, or without.

        A text that has its own BOS gets no second one.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        lead = [self.leading] if begins_with_bos and self.leading is not None else []
        return ids if ids[:1] == lead else [*lead, *ids]

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation, by the model's own template, up to where the answer begins.

        ``messages``: of each ``role`` and ``content``. Raises NoChat when the model has no template, or its template
        does not take the conversation.
        """
        if not self.tokenizer.chat_template:
            raise NoChat("the model has no chat template, so it was not made for chat: give a prompt to continue")
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(one) for one in messages], tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program, and may fail in any way
            raise NoChat(f"the model's chat template does not take this conversation: {error}") from error
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


class NoChat(ValueError):
    """A conversation cannot be put to the model, said in one sentence."""


def load_lm(
    folder: Path,
    device: str | torch.device = "cpu",
    precision: str | torch.dtype = "fp32",
    layers: int | None = None,
) -> LM:
    """Load the model and tokenizer in ``folder``; raises UnknownModel, and NoPrecision when the device has no such.

    ``layers`` builds and reads only the first that many blocks and no LM head: enough for ``LM.activations`` at hooks
    whose ``layers_needed`` is not larger. Nothing is downloaded, no code in the folder is run, no pickle is read.
    """
    folder = folder.absolute()
    facts = read_facts(folder)
    if layers is not None and not 1 <= layers <= facts.n_layers:
        raise ValueError(f"layers must be from 1 to {facts.n_layers}, not {layers}")
    precision = _named(precision)
    weight_bytes(facts, precision, layers)
    device = torch.device(device)
    check_precision(precision, device)
    tokenizer = load_tokenizer(folder)
    with _quiet():
        model = _load_model(folder, facts, device, precision, layers)
    as_packed(model)
    leading = read_vocabulary(folder, tokenizer.backend_tokenizer, facts.vocab_size).leading("always")
    return LM(model.eval().requires_grad_(False), tokenizer, facts, device, precision, leading)


def _named(precision: str | torch.dtype) -> str:
    """The precision whose numbers are of a dtype."""
    if isinstance(precision, str):
        return precision
    return next((name for name in ("fp32", "bf16", "fp16") if DTYPES[name] == precision), "fp32")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in ``folder``, which cuts text exactly as its ``tokenizer.json`` says; raises UnknownModel.

    AutoTokenizer only names the special tokens here, and the chat template: for some classes transformers 5 builds the
    rest anew from the vocabulary, and drops steps such as the splitting of digits.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UnknownModel(f"{folder} has no tokenizer.json: save the model's tokenizer there as a fast tokenizer")
    try:
        tokenizer = Tokenizer.from_file(str(path))
        with _quiet():
            named = AutoTokenizer.from_pretrained(folder, **_HERE_ONLY)
    except Exception as error:  # the tokenizers library raises plain Exceptions
        raise UnknownModel(f"the tokenizer in {folder} cannot be loaded: {error}") from error
    special = {role: token for role, token in named.special_tokens_map.items() if _is_known(tokenizer, token)}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=named.model_max_length,
        chat_template=named.chat_template,
        **special,
    )


def _is_known(tokenizer: Tokenizer, token: object) -> bool:
    """Whether ``token`` is in the vocabulary; what a class names by default may not be."""
    return isinstance(token, str) and tokenizer.token_to_id(token) is not None


def _load_model(
    folder: Path, facts: ModelFacts, device: torch.device, precision: str, layers: int | None
) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(folder, **_HERE_ONLY)
    if layers is not None:
        _keep_first(config, layers)
    weights = lazy_weights(folder)
    quantization = quantization_config(precision, _left_as_they_are(facts, weights))
    if facts.quantized and quantization:
        stored = {key: value for key, value in config.quantization_config.items() if key in _HOW_STORED}
        config.quantization_config = quantization.to_dict() | stored
    model, info = _class(config, AutoModelForCausalLM if layers is None else AutoModel).from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=DTYPES[precision],
        # Weights go there one by one, never twice in memory; bitsandbytes would take a GPU when it is not told.
        device_map=None if device.type == "cpu" and not quantization else {"": device},
        quantization_config=None if facts.quantized else quantization,
        output_loading_info=True,
    )
    if missing := info["missing_keys"]:  # transformers fills these with random numbers
        tensors = "1 tensor" if len(missing) == 1 else f"{len(missing)} tensors"
        raise UnknownModel(f"{folder} is not complete: its weights lack {tensors}, the first {min(missing)}")
    if layers is None and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return cast(PreTrainedModel, model)


def _class(config: PretrainedConfig, auto: Any) -> Any:
    """The class that ``auto`` makes a model of: known once it has made a small one, without weights."""
    smallest = copy.deepcopy(config)
    _keep_first(smallest, 1)
    with torch.device("meta"):
        return type(auto.from_config(smallest))


def _left_as_they_are(facts: ModelFacts, weights: dict[str, LazyTensor]) -> list[str]:
    """The matrices of blocks that a quantised folder holds unquantised; their names fit with and without a head."""
    if not facts.quantized:
        return []
    in_block = re.compile(rf"(?:.*\.)?({FAMILIES[facts.family].blocks}\.[0-9]+\.[A-Za-z0-9_.]+)\.weight")
    plain = (
        name for name in weights if not {f"{name}.quant_map", f"{name.removesuffix('.weight')}.SCB"} & weights.keys()
    )
    return [match[1] for name in plain if (match := in_block.fullmatch(name))]


def _keep_first(config: PretrainedConfig, layers: int) -> None:
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and no report of the weights that were left out on purpose."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
