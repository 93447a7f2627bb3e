"""Tests of files as people have them: each that contradicts a task is rejected or named, never
silent."""
