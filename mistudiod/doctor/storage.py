"""The data folder, the disk it is on, and the database in it."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from mistudiod import schema
from mistudiod.doctor.finding import Finding, Subject
from mistudiod.host import text
from mistudiod.paths import FLOOR_BYTES, Paths

WRITES, WRITE_BYTES = 8, 4096
SLOW_MS = 100.0
LITTLE_BYTES = 2_000_000_000
_CHECK_LIMIT_S = 10.0
_OLDEST_SQLITE, _ONE_WRITER_NEEDED_BEFORE = (3, 27, 0), (3, 51, 3)
# SQLite's locks and its shared memory cannot be trusted there.
_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "lustre", "glusterfs", "beegfs", "fuse.sshfs", "fuse.rclone")


def folder(subject: Subject) -> Finding:
    data = subject.settings.data
    name, remedy = "data folder", f"choose another with --data, or run: sudo chown -R $USER {data}"
    existing = _existing(data)
    if not existing.is_dir():
        return Finding(name, "problem", f"{existing} is no folder", "move it away, or choose another with --data")
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(name, "problem", f"{existing} cannot be written by user {user(os.geteuid())}", remedy)
    if existing != data:
        return Finding(name, "ok", f"{data} is made at the first start")
    found = data.stat()
    if found.st_uid != os.geteuid():
        message = f"{data} belongs to {user(found.st_uid)}, the studio runs as {user(os.geteuid())}"
        return Finding(name, "warning", message, f"run the studio as {user(found.st_uid)}, or {remedy}")
    if found.st_mode & 0o022:
        message = f"other users may write to {data} (mode {found.st_mode & 0o777:o})"
        return Finding(name, "warning", message, f"run: chmod go-w {data}")
    return Finding(name, "ok", f"{data} belongs to {user(found.st_uid)}, mode {found.st_mode & 0o777:o}")


def file_system(subject: Subject) -> Finding | None:
    kind = _file_system(subject.root, _existing(subject.settings.data))
    if kind is None:
        return None
    if kind.startswith(_NETWORK):
        message = f"{kind}: over a network the database can be damaged, and everything is slow"
        return Finding("file system", "warning", message, "choose a folder on this machine's own disk with --data")
    if kind in ("tmpfs", "ramfs"):
        message = f"{kind}: what is in memory is lost when the machine is switched off"
        return Finding("file system", "warning", message, "choose a folder on a disk with --data")
    return Finding("file system", "ok", kind)


def space(subject: Subject) -> Finding:
    free = shutil.disk_usage(_existing(subject.settings.data)).free
    message, remedy = f"{free / 1e9:,.1f} GB free", "delete what is not needed: mistudio dataset rm, mistudio job rm"
    if free < FLOOR_BYTES:
        return Finding("disk space", "problem", f"{message}: nothing more can be written", remedy)
    return Finding(
        "disk space", "warning" if free < LITTLE_BYTES else "ok", message, remedy if free < LITTLE_BYTES else None
    )


def speed(subject: Subject) -> Finding | None:
    """How long a small write takes until it would survive a power cut: a state of a job is such a write."""
    where = _existing(subject.settings.data)
    if not os.access(where, os.W_OK | os.X_OK):
        return None
    taken = []
    with tempfile.TemporaryFile(dir=where, buffering=0) as file:
        for _ in range(WRITES):
            began = time.perf_counter()
            file.write(bytes(WRITE_BYTES))
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    median = statistics.median(taken)
    message = f"a safe write of 4 KiB takes {median:.1f} ms"
    if median > SLOW_MS:
        return Finding("disk speed", "warning", f"{message}, which is slow", "move the data folder to an SSD")
    return Finding("disk speed", "ok", message)


def sqlite(_subject: Subject) -> Finding:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        return Finding("sqlite", "problem", f"SQLite {version} is too old", "install a newer Python: it brings SQLite")
    if sqlite3.sqlite_version_info < _ONE_WRITER_NEEDED_BEFORE:
        return Finding("sqlite", "ok", f"SQLite {version}; its WAL-reset bug needs two writers, the studio has one")
    return Finding("sqlite", "ok", f"SQLite {version}")


def database(subject: Subject) -> Finding:
    """Opened read-only, beside the daemon's own connection if that is up."""
    paths = Paths(subject.settings.data)
    if not paths.database.exists():
        if any((paths.data / "runs").glob("[0-9]*")):
            message = "there is none, though there are jobs' folders; the next start builds it from them"
            return Finding(
                "database",
                "warning",
                message,
                "stop the studio and run: mistudiod restore --database, with a backup's FILE or the newest",
            )
        return Finding("database", "ok", "is made at the first start")
    remedy = f"stop the studio and run mistudiod restore --database, which takes the newest of {paths.backups}"
    try:
        with closing(sqlite3.connect(f"{paths.database.absolute().as_uri()}?mode=ro", uri=True)) as db:
            newer = schema.applied(db) - schema.known()
            problem = _quick_check(db)
    except sqlite3.Error as error:
        return Finding("database", "problem", f"{paths.database} cannot be read: {error}", remedy)
    if newer:
        message = f"it was written by a newer miStudio (it has {max(newer)})"
        return Finding("database", "problem", message, "install that version, or choose another folder with --data")
    if problem not in ("ok", None):
        return Finding("database", "problem", f"{paths.database} is damaged: {problem}", remedy)
    size = f"{paths.database.stat().st_size / 1e6:,.1f} MB"
    return Finding("database", "ok", f"{size}, whole" if problem else f"{size}, too large to be checked in 10 s")


def _quick_check(db: sqlite3.Connection) -> str | None:
    """``ok``, or what is wrong; None when it takes too long."""
    end = time.monotonic() + _CHECK_LIMIT_S
    db.set_progress_handler(lambda: time.monotonic() > end, 1000)
    try:
        return str(db.execute("pragma quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError:
        if time.monotonic() > end:
            return None
        raise


def _existing(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    return next((one for one in (path, *path.parents) if one.exists()), path)


def user(uid: int) -> str:
    """The name of a user; the number of one who has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _file_system(root: Path, path: Path) -> str | None:
    """Of the mount that holds the path: ``36 35 98:0 / /mount rw - ext4 /dev/sda1 rw``; spaces are ``\\040``."""
    place, found = Path(os.path.realpath(path)), None
    longest = -1
    for line in (text(root / "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        mount = Path(re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), fields[4]))
        if place.is_relative_to(mount) and len(mount.parts) >= longest:  # of two on one place the later counts
            longest, found = len(mount.parts), after.split()[0]
    return found
