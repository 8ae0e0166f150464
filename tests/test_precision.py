"""A model is loaded at the precision asked for, or it is said why this machine cannot: tried with real kernels."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, LAYERS, VOCABULARY, configure, tiny_model
from torch import Tensor, nn

from mistudiod.engine import precision
from mistudiod.engine.hooks import hooked, layers_needed
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.precision import DTYPES, NoPrecision, capabilities, check_precision, stamp, why_not
from mistudiod.facts import PRECISIONS, Part, UnknownModel, hook_names, read_facts, weight_bytes

QUANTISED = ("int8", "nf4")
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(1, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def untried() -> None:
    """What was found out so far is asked again, before and after."""
    precision._tried.cache_clear()
    yield
    precision._tried.cache_clear()


def held_bytes(model: nn.Module) -> int:
    """Of all weights, each once, with what a quantised one has beside it."""
    weights = {weight.data_ptr(): weight for weight in model.parameters()}
    return sum(size(weight) + beside(weight) for weight in weights.values())


def size(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def beside(weight: Tensor) -> int:
    if (state := getattr(weight, "quant_state", None)) is not None:
        return size(state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
    scales = getattr(weight, "SCB", None)
    return 0 if scales is None else size(scales)


def layers_of(lm: LM) -> dict[str, nn.Module]:
    return {name: module for name, module in lm.model.named_modules() if hasattr(module, "in_features")}


def test_a_cpu_can_do_every_precision() -> None:
    assert capabilities("cpu") == dict.fromkeys(PRECISIONS)


def test_a_machine_without_a_gpu_says_why_it_cannot() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert capabilities("cuda").keys() == set(PRECISIONS)
    for name, reason in capabilities("cuda").items():
        assert reason and reason.startswith(f"{name} does not work on cuda: ") and "\n" not in reason


@pytest.mark.usefixtures("untried")
def test_a_kernel_that_fails_switches_off_its_precision_and_no_other(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = precision._error
    asked: list[str] = []

    def broken(name: str, device: torch.device) -> float:
        asked.append(name)
        if name == "nf4":
            raise RuntimeError("Error named symbol not found at line 62 in file csrc/ops.cu\n  more of it")
        return error(name, device)

    monkeypatch.setattr(precision, "_error", broken)
    reason = "nf4 does not work on cpu: Error named symbol not found at line 62 in file csrc/ops.cu"
    assert capabilities("cpu") == dict.fromkeys(PRECISIONS) | {"nf4": reason}
    assert capabilities(torch.device("cpu"))["nf4"] == reason and asked == list(PRECISIONS)  # once a process
    with pytest.raises(NoPrecision) as caught:
        load_lm(saved, precision="nf4")
    assert str(caught.value) == reason
    check_precision("int8", "cpu")


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("wrong", [0.4, float("nan"), float("inf")])
def test_a_kernel_that_computes_nonsense_is_switched_off(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_error", lambda *_: wrong)
    assert why_not("bf16", "cpu") == f"bf16 does not work on cpu: a product came out {wrong:.2g} wrong"


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(
    "full",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED"),
        MemoryError(),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:20]}",
)
def test_memory_that_is_full_says_nothing_about_the_precision(full: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise full

    with monkeypatch.context() as patch, pytest.raises(type(full)):
        patch.setattr(precision, "_error", fail)
        why_not("bf16", "cpu")
    assert why_not("bf16", "cpu") is None


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("package", ["bitsandbytes", "accelerate"])
def test_a_package_that_is_missing_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    precision.bitsandbytes.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    assert why_not("nf4", "cpu") == f"nf4 needs the Python package {package}: run pip install 'mistudio[worker]'"
    assert why_not("bf16", "cpu") is None
    precision.bitsandbytes.cache_clear()


@pytest.mark.usefixtures("untried")
def test_a_bitsandbytes_that_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    precision.bitsandbytes.cache_clear()
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(__version__="0.45.5"))
    reason = "int8 does not work on cpu: bitsandbytes 0.45.5 is too old: install 0.50 or newer"
    assert why_not("int8", "cpu") == reason
    precision.bitsandbytes.cache_clear()


def test_four_bits_are_always_nf4_with_double_quantisation_and_bfloat16() -> None:
    config = precision.quantization_config("nf4")
    assert config.load_in_4bit and config.bnb_4bit_quant_type == "nf4" and config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert [precision.quantization_config(name) for name in ("fp32", "bf16", "fp16")] == [None] * 3


def test_what_is_made_of_activations_is_stamped_with_their_precision() -> None:
    assert stamp("fp16") == {"precision": "fp16", "compute_dtype": "float16", "bitsandbytes": None}
    version = precision.bitsandbytes().__version__
    assert stamp("nf4") == {"precision": "nf4", "compute_dtype": "bfloat16", "bitsandbytes": version}


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_takes_the_bytes_foretold_and_says_its_precision(family: str, name: str, tmp_path: Path) -> None:
    facts = read_facts(tiny_model(family, tmp_path))
    whole, part = load_lm(tmp_path, precision=name), load_lm(tmp_path, precision=name, layers=2)
    assert whole.precision == part.precision == name
    assert held_bytes(whole.model) == weight_bytes(facts, name)
    assert held_bytes(part.model) == weight_bytes(facts, name, layers=2)


@pytest.mark.parametrize("name", ["bf16", "fp16", *QUANTISED])
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_of_a_part_are_those_of_the_whole_model_at_any_precision(
    family: str, name: str, ids: Tensor, tmp_path: Path
) -> None:
    hooks = hook_names(read_facts(tiny_model(family, tmp_path)))
    whole, exact = load_lm(tmp_path, precision=name), load_lm(tmp_path)
    parts = {n: load_lm(tmp_path, precision=name, layers=n) for n in range(1, LAYERS + 1)}
    for hook in hooks:
        x = whole.activations(ids, hook)
        assert x.dtype == DTYPES[name] and x.isfinite().all()
        assert torch.equal(parts[layers_needed(hook)].activations(ids, hook), x)
    expected = exact.activations(ids, HOOK)
    wrong = (whole.activations(ids, HOOK).float() - expected).norm() / expected.norm()
    assert 0 < wrong < {"bf16": 0.05, "fp16": 0.01, "int8": 0.1, "nf4": 0.5}[name]


@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_the_blocks_is_quantised_and_the_head_is_not(family: str, name: str, tmp_path: Path) -> None:
    whole = load_lm(tiny_model(family, tmp_path), precision=name)
    kind = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}[name]
    kinds = {layer: type(module).__name__ for layer, module in layers_of(whole).items()}
    assert kinds.pop("lm_head") == "Linear"
    assert whole.model.lm_head.weight.dtype == torch.bfloat16
    assert set(kinds.values()) == {kind} and len(kinds) == LAYERS * (4 if family in ("gpt2", "gpt_neox") else 7)
    part = load_lm(tmp_path, precision=name, layers=2)  # here transformers would take the last norm for the head
    assert {type(module).__name__ for module in layers_of(part).values()} == {kind}


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_model_is_steered_like_any_other(name: str, saved: Path, ids: Tensor) -> None:
    lm = load_lm(saved, precision=name)
    with torch.no_grad():
        logits = lm.model(ids).logits
        for hook in hook_names(lm.facts)[6:12]:
            with hooked(lm.model, {hook: lambda x: x + 1.0}):
                assert not torch.equal(lm.model(ids).logits, logits)
        assert torch.equal(lm.model(ids).logits, logits)


@pytest.mark.parametrize("name", QUANTISED)
def test_gradients_reach_the_input_of_a_quantised_block_also_after_a_pass_without(
    name: str, saved: Path, ids: Tensor
) -> None:
    lm = load_lm(saved, precision=name)
    lm.activations(ids, HOOK)
    block = lm.model.model.layers[1].mlp
    x = torch.randn(1, 4, 32, dtype=torch.bfloat16, requires_grad=True)
    block(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0


@pytest.mark.parametrize("width", [8, 32, 64, 96, 160, 4304])
def test_four_bit_rows_that_are_no_whole_blocks_are_unpacked_right(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(4, width, generator=generator), torch.randn(6, width, generator=generator)
    layer = precision._layer("nf4", weight).to("cpu").eval()
    precision.as_packed(layer)
    exact = x @ weight.T
    assert (layer(x) - exact).norm() / exact.norm() < 0.15


def stored_as(name: str, model: Path, folder: Path) -> Path:
    """The model as transformers saves it once it is quantised."""
    lm = load_lm(model, precision=name)
    lm.model.save_pretrained(folder)
    shutil.copy(model / "tokenizer.json", folder)
    return folder


@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma3_text"])
def test_a_folder_of_quantised_weights_is_the_same_model(family: str, name: str, ids: Tensor, tmp_path: Path) -> None:
    plain = read_facts(tiny_model(family, tmp_path / "plain"))
    facts = read_facts(stored_as(name, tmp_path / "plain", tmp_path / "stored"))
    assert (facts.quantized, facts.parameters, facts.hook_widths) == (name, plain.parameters, plain.hook_widths)
    assert facts.parts == {
        part: Part(whole.parameters, {name: whole.weight_bytes[name]}) for part, whole in plain.parts.items()
    }
    x = load_lm(tmp_path / "plain", precision=name).activations(ids, HOOK)
    for layers in (None, 2):
        lm = load_lm(tmp_path / "stored", precision=name, layers=layers)
        assert held_bytes(lm.model) == weight_bytes(facts, name, layers)
        assert torch.equal(lm.activations(ids, HOOK), x)


@pytest.mark.parametrize("layers", [None, 2])
def test_matrices_that_a_quantised_folder_left_as_they_were_are_read_so(
    layers: int | None, saved: Path, ids: Tensor, tmp_path: Path
) -> None:
    stored_as("nf4", saved, tmp_path)
    name = "model.layers.1.mlp.up_proj"
    weights = {key: w for key, w in load_file(tmp_path / "model.safetensors").items() if not key.startswith(name)}
    weights[f"{name}.weight"] = load_file(saved / "model.safetensors")[f"{name}.weight"].bfloat16()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    lm = load_lm(tmp_path, precision="nf4", layers=layers)
    assert [type(m).__name__ for n, m in layers_of(lm).items() if n.endswith("up_proj")].count("Linear") == 1
    assert lm.activations(ids, HOOK).isfinite().all()


def test_a_quantised_folder_is_computed_in_bfloat16_whatever_it_says(saved: Path, tmp_path: Path) -> None:
    stored_as("nf4", saved, tmp_path)
    how = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}
    configure(tmp_path, quantization_config=how | {"bnb_4bit_use_double_quant": True, "quant_method": "bitsandbytes"})
    layers = layers_of(load_lm(tmp_path, precision="nf4", layers=1))
    assert {module.compute_dtype for module in layers.values()} == {torch.bfloat16}


def test_a_quantised_folder_is_not_loaded_at_another_precision(saved: Path, tmp_path: Path) -> None:
    stored_as("int8", saved, tmp_path)
    with pytest.raises(UnknownModel, match=r"^the model is stored as int8: it can be loaded as that and as nothing"):
        load_lm(tmp_path, precision="bf16")


# A CPU that has AVX512-BF16, for all that bitsandbytes knows: 48 outputs make it fail, its weights are packed anew at
# the first pass, and code is asked for from the Hub. The last argument is a folder with a package called kernels.
PRETENDED = """
import ctypes, sys
native = ctypes.CDLL.__getattr__
ctypes.CDLL.__getattr__ = lambda lib, name: (lambda: True) if name == "has_avx512bf16_cpu" else native(lib, name)
sys.path.append(sys.argv[1])
sys.addaudithook(lambda event, args: sys.exit(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
import torch
from pathlib import Path
from mistudiod.engine import precision
from mistudiod.engine.lm import load_lm
layer = precision._layer("nf4", torch.randn(48, 64)).to("cpu").eval()
assert layer.support_avx512bf16_for_cpu
try:
    layer(torch.randn(2, 64, dtype=torch.bfloat16))
except AssertionError as error:
    assert "divisible" in str(error)
else:
    sys.exit("this CPU was not pretended well")
assert precision.capabilities("cpu")["nf4"] is None
lm = load_lm(Path(sys.argv[2]), precision="nf4")
layers = [module for module in lm.model.modules() if hasattr(module, "quant_type") or hasattr(module, "compute_dtype")]
before = [layer.weight.data.clone() for layer in layers]
ids = torch.arange(1, 25)[None]
lm.activations(ids, "blocks.1.hook_resid_post")
assert layers and all(torch.equal(layer.weight.data, was) for layer, was in zip(layers, before))
x = torch.randn(1, 4, 32, dtype=torch.bfloat16, requires_grad=True)
lm.model.model.layers[1].mlp(x).sum().backward()
assert x.grad is not None
"""


def test_a_cpu_with_avx512_bf16_packs_nothing_anew_loses_no_gradient_and_asks_nobody_for_code(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(
        "import sys\ndef get_kernel(*args, **rest):\n    sys.exit(f'{args} was asked for')\n"
    )
    model = tiny_model("llama", tmp_path / "model", intermediate_size=688)
    command = [sys.executable, "-c", PRETENDED, str(tmp_path), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
