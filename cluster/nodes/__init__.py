"""The machines of a Ray cluster: token, head, who joins and leaves, and connecting to it."""
