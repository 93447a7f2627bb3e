"""Starting, supervising, scheduling and ending a run on Ray."""
