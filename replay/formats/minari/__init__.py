"""Minari data sets: read as episodes, and written."""
