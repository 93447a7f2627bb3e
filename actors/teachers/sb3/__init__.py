"""Policies of Stable-Baselines3, read from their zips without running any of their pickles."""
