"""The vocabulary of the domain: events, windows, vectors, items, bundles, settings and ports.

Standard library, numpy and msgspec only; every other package builds on this one.
"""
