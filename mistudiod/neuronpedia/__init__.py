"""Neuronpedia's formats, written, checked and read. Pure: the standard library and feature stores, no network.

``docs/formats.md`` says what is written and what is not.
"""
