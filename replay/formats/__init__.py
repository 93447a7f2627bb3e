"""Data sets of other projects, read as episodes, and Minari written."""
