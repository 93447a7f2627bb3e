"""Tests of cluster/monitor."""
