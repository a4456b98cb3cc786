"""Kills things while events flow, and compares what is left with an independent oracle."""
