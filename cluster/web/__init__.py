"""The page of a run: its curves and its parts in a browser, as they happen."""
