"""Tests of cluster/runs/data."""
