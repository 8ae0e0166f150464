"""Where the data folder of a drill lies: on a file system of its own, where one can be made, else in a plain folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

SIZE = "1500M"
PIECE_BYTES = 1 << 20


class Ground:
    """``own`` says why there is no file system of its own; empty when there is one."""

    def __init__(self, home: Path, own_file_system: bool = True) -> None:
        self.home, self.image, self.mount = home, home / "disk.img", home / "disk"
        self.data = self.mount / "data"
        self.why_not = "" if own_file_system else "not asked for"
        if own_file_system and os.geteuid() != 0:
            self.why_not = "only root can mount a file system"

    def __enter__(self) -> Ground:
        self.mount.mkdir(parents=True, exist_ok=True)
        if not self.why_not:
            try:
                run("truncate", "-s", SIZE, str(self.image))
                run("mkfs.ext4", "-q", "-F", "-m", "0", str(self.image))
                self.attach()
            except (OSError, subprocess.CalledProcessError) as error:
                self.why_not = f"a file system of its own cannot be mounted here ({error})"
        return self

    def __exit__(self, *_: object) -> None:
        if not self.why_not:
            self.detach()
            self.image.unlink(missing_ok=True)

    def attach(self) -> None:
        run("mount", "-o", "loop", str(self.image), str(self.mount))

    def detach(self) -> None:
        run("umount", str(self.mount))

    def put(self, made: Path) -> None:
        """A copy of that data folder, all of it on the disk."""
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(made, self.data)
        run("sync", "-f", str(self.data))

    def lose_power(self) -> None:
        """Go back to what has really been written to the disk by now. Nothing may be running in the folder.

        What only the kernel knew, for nobody had asked for it to be written (fsync), is gone.
        """
        cut = self.home / "cut.img"
        run("cp", "--sparse=always", str(self.image), str(cut))
        self.detach()
        cut.replace(self.image)
        self.attach()

    def remount(self, how: str) -> None:
        """``ro`` or ``rw``; what was killed a moment ago may have files open still."""
        for tries_left in reversed(range(50)):
            try:
                return run("mount", "-o", f"remount,{how}", str(self.mount))
            except subprocess.CalledProcessError:
                if not tries_left:
                    raise
                time.sleep(0.2)

    def fill(self, leave_bytes: int) -> None:
        """Leave so much free, and no more; ``free`` gives it back."""
        with contextlib.suppress(OSError), (self.mount / "ballast").open("ab", buffering=0) as file:
            while (left := shutil.disk_usage(self.mount).free - leave_bytes) > 0:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, min(left, 64 * PIECE_BYTES))

    def free(self) -> None:
        (self.mount / "ballast").unlink(missing_ok=True)


def below(folder: Path) -> list[Path]:
    """All that lies there, what is above first. What goes away meanwhile is left out, which rglob has for an error."""
    return sorted(Path(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
