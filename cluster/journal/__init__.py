"""The journal of a run: one Redis stream of typed records, and the private Redis server."""
