"""Tests of actors/envs."""
