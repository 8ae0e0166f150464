"""Handlers: parse, ask the store or the scheduler, answer JSON. One file for each noun."""
