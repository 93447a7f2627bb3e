"""Tests of cluster/monitor/terminal."""
