"""Tests of actors/teachers."""
