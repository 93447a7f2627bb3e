"""Speeds of playing."""
