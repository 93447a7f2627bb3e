"""The commands of `gato sweep`."""
