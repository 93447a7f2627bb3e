"""Runs by name whose settings take a file of their own; `cluster.runs.presets` lists them all."""
