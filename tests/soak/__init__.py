"""Hours of mixed work, and whether the daemon stays as it was: ``python -m tests.soak --minutes 120``.

The real daemon, real workers on the bundled model, the tests' own Hub, twenty readers of events that come and go.
Memory, file descriptors and how late readers hear are measured each second; docs/reliability.md has what came of it.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
if str(TESTS) not in sys.path:  # the helpers that all tests share
    sys.path.append(str(TESTS))
