"""The catalogue of tasks and how a name finds its task."""
