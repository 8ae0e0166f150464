"""``python -m tests.soak [--minutes N] [--report soak.json] [--keep FOLDER]``; ends with 1 when it was not passed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from tests.soak import report
from tests.soak.run import soak
from tests.soak.verdict import passed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Hours of mixed work on a real studio.")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--report", type=Path, default=Path("soak.json"), help="beside it are a .svg and a .md")
    parser.add_argument("--keep", type=Path, help="the data folder and the daemon's log lie here, and stay")
    options = parser.parse_args()
    keep = nullcontext(str(options.keep)) if options.keep else tempfile.TemporaryDirectory()
    with keep as home:
        Path(home).mkdir(parents=True, exist_ok=True)
        found = soak(Path(home), options.minutes * 60, lambda said: print(said, flush=True))
    report.write(found, options.report)
    print(report.markdown(found))
    return 0 if passed(found.verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
