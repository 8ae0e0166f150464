"""The worker itself, for a studio that is started with a script."""

from __future__ import annotations

import os

from mistudiod.worker.__main__ import main

os._exit(main())
