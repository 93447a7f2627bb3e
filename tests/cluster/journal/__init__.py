"""Tests of cluster/journal."""
