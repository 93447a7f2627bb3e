"""Environments of every kind behind one interface, and the checks that each must pass."""
