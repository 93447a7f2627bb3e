"""Tests of cluster/nodes."""
