"""Environments, teachers and workers: everything that plays."""
