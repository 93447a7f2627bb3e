"""Tests of gato/network."""
