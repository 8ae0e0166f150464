"""miStudio's daemon, worker and engine."""

__version__ = "0.8.0"
