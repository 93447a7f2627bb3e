"""Tests of replay/formats."""
