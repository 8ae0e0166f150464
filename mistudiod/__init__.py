"""miStudio's daemon, worker and engine."""

__version__ = "0.2.0"
