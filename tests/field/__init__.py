"""Tests of files as people have them: each that contradicts a task is refused or said, never
silent."""
