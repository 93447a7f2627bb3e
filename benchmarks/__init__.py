"""Measurements: each a script that writes a row or a curve with machine, date and commit."""
