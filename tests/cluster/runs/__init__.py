"""Tests of cluster/runs."""
