"""Tests of actors/players."""
