"""Measurements: the project beside its alternatives, on one machine in one run."""
