"""Tests of actors/teachers/sb3."""
