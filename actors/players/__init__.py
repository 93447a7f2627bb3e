"""Players: Gato with its weights, players that wrap another, and shared inference."""
