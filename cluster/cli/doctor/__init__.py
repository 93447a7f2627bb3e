"""`gato doctor` and what it tries."""
