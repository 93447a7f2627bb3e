"""Tests of replay/sampling."""
