"""miStudio's daemon, worker and engine."""

__version__ = "0.4.0"
