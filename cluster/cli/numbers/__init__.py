"""The words of `gato` that hand a run's numbers on: compare, export-metrics, follow, report."""
