"""A run as `gato watch` shows it: its picture in a terminal, and the loop that draws it again."""
