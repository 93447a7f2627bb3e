"""Tests of replay/storage."""
