"""Files as they come from elsewhere: damaged, huge in what they say, vast in number, unknown; and the memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from formats import D, F, inputs, only, weights, write_folder

from mistudiod.engine.formats import FORMATS, FolderListing, find, read
from mistudiod.engine.formats.base import config_of, tensors_of
from mistudiod.engine.formats.hints import module_hook, path_hints
from mistudiod.engine.tensor_files import TensorFile, Written, write_tensors

CONFIG: dict[str, object] = {"architecture": "standard", "d_in": D, "d_sae": F, "metadata": {"sae_lens_version": "6.0"}}


def published(folder: Path) -> Path:
    """A SAELens folder, whose weights are returned."""
    w = weights()
    write_folder(folder, CONFIG, {name: w[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")})
    return folder / "sae_weights.safetensors"


def with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def overlapping(header: dict[str, Any]) -> None:
    header["b_enc"]["data_offsets"] = [offset - 4 for offset in header["b_enc"]["data_offsets"]]


def huge(header: dict[str, Any]) -> None:
    header["W_enc"]["shape"] = [1 << 40, 1 << 20]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is cut short"),
        (lambda path: path.write_bytes(path.read_bytes()[:20]), "is cut short"),
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), "bytes of no tensor behind"),
        (lambda path: path.write_bytes(b""), "does not begin with the header"),
        (lambda path: with_header(path, overlapping), "is damaged"),
        (lambda path: with_header(path, huge), "the size of 'W_enc' does not fit its shape"),
        (lambda path: with_header(path, lambda header: header["W_enc"].update(dtype="F8_E4M3")), "cannot be read"),
        (lambda path: with_header(path, lambda header: header["W_enc"].update(dtype="I32")), "not all finite floating"),
        (lambda path: with_header(path, lambda header: header.update(x=header.pop("b_enc"))), "has no b_enc"),
        (lambda path: with_header(path, lambda header: header["W_enc"].update(shape=[F, D])), "is expected"),
    ],
)
def test_damaged_weights_are_refused_in_a_sentence(tmp_path: Path, damage: Callable[[Path], object], says: str) -> None:
    path = published(tmp_path)
    damage(path)
    with pytest.raises(ValueError, match=says) as refused:
        only(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["W_enc", "b_dec"])
def test_numbers_that_are_not_finite_are_refused_by_the_tensor_s_name(tmp_path: Path, name: str, value: float) -> None:
    path = published(tmp_path)
    w = {one: weights()[one] for one in ("W_enc", "W_dec", "b_enc", "b_dec")}
    w[name].view(-1)[-1] = value
    write_folder(tmp_path, CONFIG, w)
    with pytest.raises(ValueError, match=f"{path.name} of .* holds a {name} that is not all finite"):
        only(tmp_path)


def test_an_unknown_layout_is_answered_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"?")
    with pytest.raises(ValueError, match="holds no SAE of a known layout: mistudio_original, saelens, gemma_scope"):
        find(FolderListing(tmp_path))
    with pytest.raises(ValueError, match="neither a folder nor a file"):
        FolderListing(tmp_path / "absent")
    write_tensors(tmp_path / "model.safetensors", {"lm_head.weight": Written(torch.zeros(2, 2))})
    with pytest.raises(ValueError, match="holds no SAE of a known layout"):
        find(FolderListing(tmp_path))


@pytest.mark.parametrize("text", ["[]", "{", "\x80", "[" * 100_000, '{"a": 1, ' + '"x" : "' + "y" * (1 << 20) + '"}'])
def test_a_config_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    published(tmp_path)
    (tmp_path / "cfg.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"^cfg.json of .*(cannot be read|does not hold a JSON object)"):
        only(tmp_path)


def test_of_several_sae_s_a_damaged_one_hides_no_other(tmp_path: Path) -> None:
    for layer in (3, 10, 7):
        published(tmp_path / f"blocks.{layer}.hook_resid_post")
    (tmp_path / "blocks.3.hook_resid_post/cfg.json").write_text("{")
    listing = FolderListing(tmp_path)
    found = find(listing)
    assert [one.layer for one in found] == [7, 10] and {one.width for one in found} == {F}
    assert found[0].hook == "blocks.7.hook_resid_post" == read(listing, found[0]).hook


def test_one_file_is_read_with_the_config_beside_it(tmp_path: Path) -> None:
    path = published(tmp_path)
    published(tmp_path / "other")
    assert FolderListing(path).names() == ["cfg.json", "sae_weights.safetensors"]
    assert only(path).sae.d_sae == F


def test_formats_have_names_of_their_own() -> None:
    assert len({one.name for one in FORMATS}) == len(FORMATS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type_is_read_as_float32_either_way_round(tmp_path: Path, dtype: torch.dtype) -> None:
    x = inputs().to(dtype)
    write_folder(tmp_path, None, {"x": x, "one": x.sum()})
    file = TensorFile(tmp_path / "sae_weights.safetensors")
    assert torch.equal(file.take("x", x.shape), x.float())
    turned = file.take("x", x.shape[::-1], turned=True)
    assert turned.is_contiguous() and torch.equal(turned, x.float().t())
    assert file.number("one") == x.sum().float().item()


def test_what_is_written_safetensors_reads(tmp_path: Path) -> None:
    x = inputs()
    write_tensors(tmp_path / "a.safetensors", {"b": Written(x.t()), "a": Written(x[0, 0], lambda one, _: one * 2)})
    file = TensorFile(tmp_path / "a.safetensors")
    assert torch.equal(file.take("b", x.t().shape), x.t()) and file.number("a") == 2 * x[0, 0].item()


@pytest.mark.parametrize(
    ("path", "layer", "width", "l0", "hook"),
    [
        ("layer_12/width_16k/average_l0_82", 12, 16384, 82, None),
        ("layer_3/width_1m/average_l0_9", 3, 1 << 20, 9, None),
        ("width_131k", None, 131072, None, None),
        ("width_24k", None, 24576, None, None),
        ("data/layer_1/blocks.8.hook_resid_pre", 8, None, None, "blocks.8.hook_resid_pre"),
        ("resid_post/layer_9_width_16k_l0_small", 9, 16384, None, None),
        ("layers.7", 7, None, None, None),
        ("somewhere/else", None, None, None, None),
    ],
)
def test_paths_are_taken_at_their_word(
    path: str, layer: int | None, width: int | None, l0: float | None, hook: str | None
) -> None:
    hints = path_hints(path)
    assert (hints.layer, hints.width, hints.l0, hints.hook) == (layer, width, l0, hook)


def test_modules_have_the_names_of_hooks() -> None:
    assert module_hook("model.layers.3.self_attn.o_proj", "in") == "blocks.3.attn.hook_z"
    assert module_hook("transformer.h.0", "in") == "blocks.0.hook_resid_pre"
    assert module_hook("layers.3.mlp", "out") == "blocks.3.hook_mlp_out"
    assert module_hook("layers.3.mlp", "out", post_normed=True) is None
    assert module_hook("embed_tokens", "out") is None


def test_a_header_is_read_without_the_file(tmp_path: Path) -> None:
    path = published(tmp_path)
    listing, asked = FolderListing(tmp_path), 0

    class Far:
        source = "owner/repo"

        def size(self, name: str) -> int:
            return listing.size(name)

        def read(self, name: str, start: int, n: int) -> bytes:
            nonlocal asked
            asked += n
            return listing.read(name, start, n)

    assert tensors_of(Far(), path.name).keys() == {"W_enc", "W_dec", "b_enc", "b_dec"}  # type: ignore[arg-type]
    assert asked < 1000 < path.stat().st_size
    assert config_of(listing, "cfg.json")["d_in"] == D


MEASURE = """
import resource, sys, torch
from pathlib import Path
from mistudiod.engine.formats import FolderListing, find, read
torch.set_num_threads(1)
torch.zeros(4, 4) @ torch.zeros(4, 4)
def kib(key): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
listing = FolderListing(Path(sys.argv[1]))
(found,) = find(listing)
before = kib("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
imported = read(listing, found)
imported.sae.save(Path(sys.argv[2]))
print((kib("VmHWM:") - before) * 1024)
"""


@pytest.mark.parametrize("kind", ["saelens", "turned"])
def test_an_sae_is_read_and_saved_in_little_more_memory_than_its_file(tmp_path: Path, kind: str) -> None:
    d_in, d_sae = 512, 49_152  # 201 MB
    matrix = torch.empty(d_sae, d_in).uniform_()
    w = {"W_dec": Written(matrix), "b_dec": Written(torch.zeros(d_in))}
    folder = tmp_path / "sae"
    folder.mkdir()
    if kind == "saelens":
        w |= {"W_enc": Written(matrix.view(d_in, d_sae)), "b_enc": Written(torch.zeros(d_sae))}
        name, config = "sae_weights.safetensors", CONFIG | {"d_in": d_in, "d_sae": d_sae}
    else:
        w |= {"encoder.weight": Written(matrix), "encoder.bias": Written(torch.zeros(d_sae))}
        name, config = "sae.safetensors", {"d_in": d_in, "k": 32, "num_latents": d_sae}
    write_tensors(folder / name, w)
    (folder / "cfg.json").write_text(json.dumps(config))
    del matrix, w
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, folder, tmp_path / "ours"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 1.3 * (folder / name).stat().st_size
