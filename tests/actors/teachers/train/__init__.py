"""Tests of actors/teachers/train."""
