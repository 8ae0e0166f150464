"""``python -m tests.drills --minutes N [--seed S] [--keep DIR] [--report FILE.json] [--only KIND,…]``

Ends with 1 when anything was lost. As root on Linux every kind of fault can be made; else some are skipped, with a
word. The folder of what was lost is kept below DIR.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from hub import Hub
from made_data import made_once

from tests.drills import report
from tests.drills.arena import Arena
from tests.drills.kinds import KINDS
from tests.drills.work import ALL

TRAININGS = ("one", "grid", "long")
OTHERS = tuple(variant for variant in ALL if variant not in TRAININGS)


def main() -> int:
    asked = options()
    for number in (signal.SIGTERM, signal.SIGINT):  # also where a shell has it ignored: what is mounted is unmounted
        signal.signal(number, lambda *_: sys.exit(1))
    home = asked.keep or Path(tempfile.mkdtemp(prefix="mistudio-drills-"))
    home.mkdir(parents=True, exist_ok=True)
    print(f"seed {asked.seed}, in {home}", flush=True)
    began = time.monotonic()
    made = made_once(home)
    with Hub() as hub, Arena(home, made, asked.seed, hub=hub) as arena:
        arena.learn()
        drill(arena, asked.only, time.monotonic() + asked.minutes * 60)
    print(report.as_markdown(arena.tallies))
    lost = report.losses(arena.tallies)
    print("\n".join(lost))
    if asked.report:
        found = report.as_json(arena.tallies, asked.seed, (time.monotonic() - began) / 60)
        asked.report.write_text(json.dumps(found, indent=1) + "\n")
    if not lost and not asked.keep:
        shutil.rmtree(home)
    return int(bool(lost))


def drill(arena: Arena, kinds: list[str], end: float) -> None:
    """Every kind in turn, in a new order each time, three to five of them in a bout of work."""
    waiting: list[str] = []
    while time.monotonic() < end:
        bout = []
        for _ in range(arena.random.randint(3, 5)):
            waiting = waiting or arena.random.sample(kinds, len(kinds))
            bout.append(KINDS[waiting.pop()])
        began = time.monotonic()
        work = [arena.random.choice(TRAININGS), *arena.random.sample(OTHERS, 2)]
        arena.bout(bout, work)
        tried, lost = sum(one.tries for one in arena.tallies.values()), len(report.losses(arena.tallies))
        said = ", ".join(fault.kind for fault in bout)
        print(
            f"{', '.join(work)} under {said}: {time.monotonic() - began:.0f} s; {tried} faults, {lost} lost", flush=True
        )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.drills", description="Faults while the studio does real work."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to go on beginning bouts of work (10)")
    parser.add_argument("--seed", type=int, default=None, help="of everything that is random; any by default")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work here, and keep it")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="write the table here too")
    parser.add_argument("--only", type=_kinds, default=[*KINDS], metavar="KIND,…", help=", ".join(KINDS))
    asked = parser.parse_args()
    asked.seed = random.randrange(10**6) if asked.seed is None else asked.seed
    return asked


def _kinds(text: str) -> list[str]:
    if unknown := [kind for kind in text.split(",") if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"there is no kind {unknown[0]!r}: choose from {', '.join(KINDS)}")
    return text.split(",")


if __name__ == "__main__":
    sys.exit(main())
