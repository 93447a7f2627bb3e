"""Before the first update: how to compute, and how many rows at once."""
