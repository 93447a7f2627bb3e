"""Tests of gato/compatibility."""
