"""Tests that break replay: kills, full disks, flipped bits, poison, races."""
