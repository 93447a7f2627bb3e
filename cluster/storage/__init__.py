"""Copies of a run outside of its home, and a run made of them on another."""
