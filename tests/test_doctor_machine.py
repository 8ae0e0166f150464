"""The check-up of GPU, network and service, on machines that are made of files: a desktop, two Jetsons, a service."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kernel_files import tree

from mistudiod import doctor
from mistudiod.doctor import Finding, examine, gpu, machine, network, service, software
from mistudiod.doctor.finding import Subject
from mistudiod.settings import Settings

DRIVER = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc 12\n"
)
OPEN_DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder)\n"
DESKTOP = {"proc/driver/nvidia/version": DRIVER, "dev/nvidia0": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""}
ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0", "proc/device-tree/compatible": "nvidia,tegra234\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "dev/nvmap": "", "dev/nvhost-gpu": "", "dev/dri/renderD128": "",
}  # fmt: skip


def subject(root: Path, **settings: object) -> Subject:
    return Subject(Settings(**{"data": root / "data", **settings}), root=root)  # type: ignore[arg-type]


def problem(found: Finding | None) -> str:
    assert found is not None and found.level != "ok" and found.remedy
    return f"{found.message} → {found.remedy}"


def fine(found: Finding | None) -> str:
    assert found is not None and (found.level, found.remedy) == ("ok", None), found
    return found.message


# -- the GPU ---------------------------------------------------------------------------------------------------------


def test_where_there_is_no_gpu_nothing_is_said_of_one(tmp_path: Path) -> None:
    here = subject(tmp_path)
    assert [check(here) for check in (gpu.driver, gpu.devices, gpu.readings, gpu.kernels)] == [None] * 4


@pytest.mark.parametrize(("version", "number"), [(DRIVER, "550.54.15"), (OPEN_DRIVER, "580.95.05")])
def test_the_driver_is_named(tmp_path: Path, version: str, number: str) -> None:
    here = subject(tree(tmp_path, {"proc/driver/nvidia/version": version}))
    assert number in fine(gpu.driver(here))


def test_a_driver_that_is_too_old_for_torchs_cuda_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = subject(tree(tmp_path, DESKTOP))
    monkeypatch.setattr(software, "_built_for", lambda _folder: "CUDA 13.0")
    pytest.importorskip("torch")
    assert "550.54.15 is too old for CUDA 13" in problem(gpu.driver(here))
    monkeypatch.setattr(software, "_built_for", lambda _folder: "CUDA 12.8")
    assert fine(gpu.driver(here))


@pytest.mark.parametrize(
    ("release", "words"),
    [("R36 (release), REVISION: 4.3", "JetPack 6"), ("R38 (release), REVISION: 2.0", "JetPack 7"),
     ("R39 (release), REVISION: 1.0", "R39.1.0")],
)  # fmt: skip
def test_a_jetson_says_which_jetpack_it_has(tmp_path: Path, release: str, words: str) -> None:
    here = subject(tree(tmp_path, {**ORIN, "etc/nv_tegra_release": f"# {release}, GCID: 1\n"}))
    assert words in fine(gpu.driver(here))


def test_jetpack_5_is_too_old(tmp_path: Path) -> None:
    here = subject(tree(tmp_path, {**ORIN, "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 1\n"}))
    assert "JetPack 5 (Linux for Tegra R35.4.1) is too old" in problem(gpu.driver(here))


@pytest.mark.parametrize(("files", "count"), [(DESKTOP, 3), (ORIN, 3)])
def test_device_nodes_that_can_be_opened_are_well(tmp_path: Path, files: dict[str, str], count: int) -> None:
    assert fine(gpu.devices(subject(tree(tmp_path, files)))).startswith(f"{count} of")


def test_a_container_without_the_gpus_nodes_is_told_how_to_get_them(tmp_path: Path) -> None:
    here = subject(tree(tmp_path, {"proc/driver/nvidia/version": DRIVER}))
    assert "give the container the GPU" in problem(gpu.devices(here))


def test_nodes_of_a_group_that_one_is_not_in_name_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = subject(tree(tmp_path, ORIN))
    monkeypatch.setattr(gpu, "_may_open", lambda path: path.name != "renderD128")
    monkeypatch.setattr(gpu, "_groups", lambda _nodes: {"render", "root"})
    said = problem(gpu.devices(here))
    assert "may not open /dev/dri/renderD128" in said and "usermod -aG render " in said


def test_jtop_that_is_installed_and_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = subject(tree(tmp_path / "root", ORIN))
    assert "jetson-stats" in fine(gpu.readings(here))
    monkeypatch.syspath_prepend(tree(tmp_path / "site", {"jtop/__init__.py": ""}))
    assert "systemctl enable --now jtop" in problem(gpu.readings(here))
    tree(tmp_path / "root", {"run/jtop.sock": ""})
    assert fine(gpu.readings(here)) == "from the kernel and jtop"
    monkeypatch.setattr(gpu, "_may_open", lambda _path: False)
    assert "usermod -aG jtop" in problem(gpu.readings(here))


def test_what_a_worker_could_not_run_is_told_with_its_reason(tmp_path: Path) -> None:
    reason = "named symbol not found"
    found = {"device": "cuda", "name": "Orin", "precisions": {"fp32": None, "bf16": None, "nf4": reason}}
    tree(tmp_path, {**ORIN, "data/abilities.json": json.dumps({"asked_of": {}, "found": found})})
    said = problem(gpu.kernels(subject(tmp_path)))
    assert said.startswith(f"fp32, bf16 on Orin; not nf4: {reason}") and "for this JetPack" in said
    found["precisions"] = {"fp32": None, "nf4": None}
    tree(tmp_path, {"data/abilities.json": json.dumps({"found": found})})
    assert fine(gpu.kernels(subject(tmp_path))) == "fp32, nf4 on Orin"


@pytest.mark.parametrize("said", ["", "[]", '{"found": 3}', '{"found": {"device": "cuda", "precisions": 5}}'])
def test_abilities_that_cannot_be_read_are_asked_for_again_by_others(tmp_path: Path, said: str) -> None:
    assert gpu.kernels(subject(tree(tmp_path, {"data/abilities.json": said}))) is None


# -- the network -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(status: int) -> Iterator[str]:
    class Other(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_proxy")
def test_a_hub_that_answers_is_well_whatever_it_says_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status in (200, 404):
        with answering(status) as url:
            monkeypatch.setenv("HF_ENDPOINT", url)
            assert fine(network.hub(subject(tmp_path))) == f"{url} answers"
    with answering(503) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        assert "it says 503" in problem(network.hub(subject(tmp_path)))
    assert "refused" in problem(network.hub(subject(tmp_path)))  # it is gone


@pytest.mark.usefixtures("no_proxy")
def test_a_hub_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "LIMIT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:{1}".format(*silent.getsockname()))
        assert "timed out" in problem(network.hub(subject(tmp_path)))


def test_who_is_offline_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://never.invalid")
    assert "offline" in fine(network.hub(subject(tmp_path, offline=True)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "offline" in fine(network.hub(subject(tmp_path)))


def certified(data: Path, days: float) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mistudio")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=400)).not_valid_after(now + timedelta(days=days))
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    tree(data, {"tls/certificate.pem": pem.decode(), "tls/key.pem": secret.decode()})


def test_a_certificate_is_told_of_before_it_ends(tmp_path: Path) -> None:
    here = subject(tmp_path)
    assert network.certificate(here) is None
    certified(here.settings.data, 300)
    assert fine(network.certificate(here)).startswith("good until 20")
    certified(here.settings.data, 10.5)
    assert "10 more days" in problem(network.certificate(here))
    certified(here.settings.data, -1)
    assert "nobody can connect" in problem(network.certificate(here))
    tree(here.settings.data, {"tls/certificate.pem": "none"})
    assert "cannot be read" in problem(network.certificate(here))
    (here.settings.data / "tls" / "key.pem").unlink()
    assert "key.pem is missing" in problem(network.certificate(here))


# -- the service -----------------------------------------------------------------------------------------------------

UNIT = """[Service]
ExecStart=/opt/mistudio/bin/mistudiod serve
StateDirectory=mistudio
Environment=HF_HOME=%C/mistudio/huggingface
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
"""


def installed(root: Path, settings: str = "", **drop_ins: str) -> Subject:
    """A machine with the service; ``settings`` are its TOML."""
    files = {f"etc/systemd/system/mistudiod.service.d/{name}.conf": text for name, text in drop_ins.items()}
    files |= {"usr/lib/systemd/system/mistudiod.service": UNIT, "etc/mistudio/mistudio.toml": settings}
    return subject(tree(root, files))


def test_a_machine_without_the_service_says_nothing_of_it(tmp_path: Path) -> None:
    assert service.unit(subject(tmp_path)) is None


def test_a_service_that_sees_its_paths_is_well(tmp_path: Path) -> None:
    bound = "[Service]\n# what people put here\nBindReadOnlyPaths=-/home/ann/data \\\n  /srv/x:/home/x:rbind\n"
    here = installed(tmp_path, 'allowed_paths = "/home/ann/data/texts,/mnt/usb,/home/x"', paths=bound)
    assert "sees all paths" in fine(service.unit(here))


@pytest.mark.parametrize("path", ["/home/ann/data", "/root/texts", "/tmp/texts", "/home/ann/database"])
def test_a_path_that_the_unit_hides_is_named(tmp_path: Path, path: str) -> None:
    bound = "[Service]\nBindReadOnlyPaths=-/home/ann/data\nBindReadOnlyPaths=\nBindReadOnlyPaths=-/home/ann/base\n"
    said = problem(service.unit(installed(tmp_path, f'allowed_paths = "/mnt/usb,{path}"', paths=bound)))
    assert f"cannot see {path}" in said and f"service install --allow {path}" in said


def test_a_cache_in_a_home_and_a_data_folder_elsewhere_are_named(tmp_path: Path) -> None:
    cache = "[Service]\nEnvironment=HF_HOME=/home/ann/.cache/huggingface\n"
    assert "--hf-cache /home/ann/.cache/huggingface" in problem(service.unit(installed(tmp_path, cache=cache)))
    bound = cache + "BindReadOnlyPaths=-/home/ann/.cache\n"
    assert fine(service.unit(installed(tmp_path, cache=bound)))
    said = problem(service.unit(installed(tmp_path, 'data = "/mnt/ssd/mistudio"', cache=bound)))
    assert "cannot write to /mnt/ssd/mistudio" in said and "ReadWritePaths=/mnt/ssd/mistudio" in said
    writable = bound + "ReadWritePaths=/mnt/ssd\n"
    assert fine(service.unit(installed(tmp_path, 'data = "/mnt/ssd/mistudio"', cache=writable)))


def test_settings_with_which_the_service_does_not_start_are_a_problem(tmp_path: Path) -> None:
    assert "there is no setting 'prot'" in problem(service.unit(installed(tmp_path, "prot = 1")))


def test_an_allowed_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert service.allowed(subject(tmp_path)) is None
    assert fine(service.allowed(subject(tmp_path, allowed_paths=str(tmp_path))))
    assert f"{tmp_path}/gone" in problem(
        service.allowed(subject(tmp_path, allowed_paths=f"{tmp_path},{tmp_path}/gone"))
    )


# -- the machine -----------------------------------------------------------------------------------------------------


def test_a_clock_that_no_time_server_has_set_is_a_warning(tmp_path: Path) -> None:
    assert fine(machine.clock(subject(tmp_path)))
    tree(tmp_path, {"run/systemd/timesync/.keep": ""})
    assert "no time server has answered" in problem(machine.clock(subject(tmp_path)))
    tree(tmp_path, {"run/systemd/timesync/synchronized": ""})
    assert fine(machine.clock(subject(tmp_path)))


@pytest.mark.parametrize(("limit", "level"), [(1024, "warning"), (65_536, "ok"), (-1, "ok")])
def test_few_open_files_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, level: str) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _which: (256, limit))
    assert machine.files(subject(tmp_path)).level == level


async def test_a_check_that_fails_is_told_of_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd_thing(_subject: Subject) -> Finding:
        raise KeyError("no such board")

    monkeypatch.setattr(doctor, "CHECKS", (odd_thing, machine.clock))
    found = await examine(Settings(data=tmp_path))
    assert [(one.name, one.level) for one in found] == [("odd thing", "warning"), ("clock", "ok")]
    assert "KeyError: 'no such board'" in problem(found[0])
