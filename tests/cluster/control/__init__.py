"""Tests of cluster/control."""
