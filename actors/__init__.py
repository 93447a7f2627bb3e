"""Environments, tasks, players and teachers, and the workers that put them together."""
