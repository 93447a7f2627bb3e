"""The commands of `gato replay`."""
