"""Tests of actors/tasks."""
