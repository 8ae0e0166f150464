"""The service's own program: the miStudio that runs this command, in an environment of its own below /opt/mistudio.

A service sees no home and no checkout. Each version is a folder of its own below ``programs``; ``bin`` is a link to the
one that runs, so a new one takes the place of the old in one step, and one that was not finished is never started.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distribution, distributions
from pathlib import Path

from mistudio.errors import NoService
from mistudio.service import wheel
from mistudio.service.python import CPU_INDEX, Python, has_gpu, is_installed, torch_version
from mistudiod import __version__, units

_WHOLE = ".mistudio-installed"
# Of a checkout: what a wheel is built from.
_SOURCES = ("mistudiod", "client/mistudio", "web", "systemd", "pyproject.toml", "hatch_build.py", "README.md")
_LITTER = ("node_modules", "__pycache__")
_NO_NETWORK = ("NewConnectionError", "NameResolution", "ProxyError", "Timeout", "ConnectionReset", "IncompleteRead")
_LIMIT_S = 4 * 3600  # some GB over a slow line
Say = Callable[[str], None]


def checkout() -> Path | None:
    """The checkout that runs, when it is one and no installed package."""
    root = units.FOLDER.parent
    return root if (root / "pyproject.toml").is_file() else None


def name(python: Python) -> str:
    """The folder of this miStudio's program: another one for other sources, another Python or another PyTorch."""
    seen = hashlib.sha256(f"{python.minor} {python.torch} {torch_version()}".encode())
    root = checkout()
    if root is None:
        seen.update((distribution("mistudio").read_text("RECORD") or __version__).encode())
    else:
        for path in _source_files(root):
            seen.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return f"{__version__}-{seen.hexdigest()[:8]}"


def _source_files(root: Path) -> Iterator[Path]:
    for part in _SOURCES:
        if (root / part).is_file():
            yield root / part
        for folder, folders, files in os.walk(root / part):
            folders[:] = sorted(one for one in folders if one not in _LITTER and not one.startswith("."))
            yield from (Path(folder, one) for one in sorted(files))


def is_whole(folder: Path) -> bool:
    return (folder / _WHOLE).is_file()


def make(folder: Path, python: Python, say: Say) -> None:
    """The environment, unless it is whole already. Raises NoService; what is half made is made anew the next time."""
    if is_whole(folder):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keep = python.torch is not None and not _is_ours(python)
    say(f"making {folder} with Python {python.version}")
    _run(folder, [python.path, "-m", "venv", *(["--system-site-packages"] if keep else []), str(folder)], "making it")
    scratch = folder / "tmp"
    scratch.mkdir()
    _torch(folder, python, say)
    (folder / "constraints.txt").write_text("".join(f"{line}\n" for line in constraints(python)))
    say("installing miStudio and what it needs")
    source = checkout() or _packed("mistudio", scratch)
    extras = "worker,jetson" if Path("/etc/nv_tegra_release").exists() else "worker"
    _pip(folder, "-c", str(folder / "constraints.txt"), f"{source}[{extras}]", what="installing miStudio")
    said = _run(folder, [str(folder / "bin" / "mistudiod"), "--version"], "starting it").strip()
    if said != __version__:
        raise NoService(f"the program in {folder} is miStudio {said}, not {__version__}: see {folder / 'install.log'}")
    shutil.rmtree(scratch)
    os.sync()  # pip does not: after a power cut it would say that it is whole, of empty files
    (folder / _WHOLE).write_text(f"{__version__}\n")


def _is_ours(python: Python) -> bool:
    """Whether the PyTorch that runs here is one that the other Python could run and does not bring itself."""
    torch = torch_version()
    return torch is not None and torch != python.torch and python.minor == _minor()


def _torch(folder: Path, python: Python, say: Say) -> None:
    """The machine's own is kept, else the one that runs here is taken along; only without either is one fetched.

    So are the kernels of bitsandbytes, which a Jetson has built for itself.
    """
    if _is_ours(python):
        say(f"taking PyTorch {torch_version()} along")
        _take(folder, "torch")
    elif python.torch is not None:
        say(f"keeping PyTorch {python.torch} of {python.path}")
    else:
        gpu = has_gpu()
        say(f"installing PyTorch for the {'GPU (about 3 GB to download)' if gpu else 'CPU'}")
        _pip(folder, *([] if gpu else ["--extra-index-url", CPU_INDEX]), "torch>=2.4", what="installing PyTorch")
    if python.minor == _minor() and is_installed("bitsandbytes"):
        _take(folder, "bitsandbytes", "--no-deps")


def _take(folder: Path, package: str, *options: str) -> None:
    packed = _packed(package, folder / "tmp")
    _pip(folder, *options, str(packed), what=f"installing {package}")
    packed.unlink()  # some GB, of which there may not be many


def _packed(package: str, folder: Path) -> Path:
    try:
        return wheel.pack(package, folder)
    except (ValueError, OSError) as error:
        raise NoService(f"{package} cannot be taken along: {error}") from None


def constraints(python: Python) -> list[str]:
    """The versions that work here, where the Python is the same; and that what the machine has is not replaced."""
    held = {"mistudio": "", "torch": ""}
    if python.torch is not None and not _is_ours(python):
        held["torch"] = f"torch=={python.torch}"
        if python.numpy and python.numpy.startswith("1."):  # a torch made with it cannot exchange arrays with NumPy 2
            held["numpy"] = "numpy<2"
    if python.minor == _minor():
        if _is_ours(python):
            del held["torch"]
        for one in distributions():
            called = (one.metadata["Name"] or "").lower().replace("_", "-")
            if called and one.version:
                held.setdefault(called, f"{called}=={one.version}")
    return sorted(line for line in held.values() if line)


def _minor() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def switch(program: Path, to: str) -> bool:
    """Have ``bin`` lead to a program; whether it led elsewhere before."""
    link, target = program / "bin", f"programs/{to}/bin"
    if link.is_symlink() and os.readlink(link) == target:
        return False
    partial = program / f".bin-{os.getpid()}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    os.replace(partial, link)
    return True


def _pip(folder: Path, *arguments: str, what: str) -> None:
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    _run(folder, [*command, *arguments], what)


def _run(folder: Path, command: list[str], what: str) -> str:
    """Its words go to ``install.log``; its scratch lies beside, as /tmp may be small. Raises NoService."""
    log = folder / "install.log"
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    environ = {key: value for key, value in os.environ.items() if key not in hidden}
    environ["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing of root's in a checkout; pip compiles what it installs
    environ |= {"PIP_USER": "0", "TMPDIR": str(folder / "tmp")} if (folder / "tmp").is_dir() else {}
    try:
        ran = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, timeout=_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoService(f"{what} failed: {error}") from None
    with log.open("a") as out:
        out.write(f"$ {' '.join(command)}\n{ran.stdout}{ran.stderr}")
    if ran.returncode:
        raise NoService(_reason(what, ran.stdout + ran.stderr, log))
    return ran.stdout


def _reason(what: str, said: str, log: Path) -> str:
    if "No space left on device" in said:
        return (
            f"the disk is full: {what} needs some 4 GB below {log.parent} (10 with a GPU); free some and run this again"
        )
    if "ensurepip is not available" in said:
        return f"this Python cannot make environments: sudo apt install python3-venv, then run this again ({log})"
    if any(word in said for word in _NO_NETWORK):
        return f"no network: {what} needs PyPI, which did not answer; run this again when it is reachable ({log})"
    return f"{what} failed; the whole log is {log}"


def torch_said(python: Python) -> str:
    """For --dry-run."""
    if _is_ours(python):
        return f"the PyTorch {torch_version()} that runs here"
    if python.torch is not None:
        return f"the PyTorch {python.torch} of {python.path}, which is kept"
    return f"PyTorch for the {'GPU' if has_gpu() else 'CPU'} from PyPI"
