"""Tests of gato."""
