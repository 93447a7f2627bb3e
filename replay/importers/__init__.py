"""Importers: other projects' demonstrations (D4RL files, Minari data sets) read as episodes."""
