"""miStudio's daemon, worker and engine."""

__version__ = "0.9.1"
