"""A run's numbers where people already look: files, Prometheus, TensorBoard, trackers, webhooks."""
