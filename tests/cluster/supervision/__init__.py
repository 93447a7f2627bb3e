"""Tests of cluster/supervision."""
