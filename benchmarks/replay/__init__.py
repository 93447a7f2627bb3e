"""Speeds of replay."""
