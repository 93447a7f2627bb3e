"""Checkpoints of the learner: their files, saving beside the loop, resuming, failed steps."""
