"""A trained policy in one file, and acting with it: needs no Ray, no environment and no run."""
