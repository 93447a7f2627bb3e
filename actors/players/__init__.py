"""What plays in an environment: Gato with its weights, the players that wrap another, and the
inference server."""
