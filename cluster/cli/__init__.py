"""The command `gato`."""
