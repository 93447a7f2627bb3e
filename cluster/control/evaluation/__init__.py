"""Playing checkpoints without a run: evaluations, their reports and their prompts."""
