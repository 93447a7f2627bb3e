"""From stored episodes to batches: selectors, mixture, windows, and the arena of recently read
rows."""
