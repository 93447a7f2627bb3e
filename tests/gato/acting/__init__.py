"""Tests of gato/acting."""
