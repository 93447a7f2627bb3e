"""Data sets: what they hold, their import, their card, captions that are made."""
