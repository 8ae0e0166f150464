"""The miStudio client: ``from mistudio import Client``, and the command ``mistudio``."""

from mistudio.api import Client

__all__ = ["Client"]
