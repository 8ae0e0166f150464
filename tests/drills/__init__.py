"""Faults of every kind while the studio does real work: ``python -m tests.drills --minutes 30``.

The real daemon and real workers train, extract, tokenize, label and steer on the bundled model; something goes wrong at
random moments, and afterwards nothing may be lost, doubled or half made. docs/reliability.md says what is promised.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
if str(TESTS) not in sys.path:  # the helpers that all tests share
    sys.path.append(str(TESTS))
