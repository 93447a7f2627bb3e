"""Training of specialists with RLlib."""
