"""Replay: keeps episodes durably and serves batches of prompt-conditioned sequences."""
