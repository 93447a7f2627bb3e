"""Sweeps: a search over settings of a run, on stored episodes, with Ray Tune."""
