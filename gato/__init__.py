"""Tasks, episodes, tokens, sequences, the model and acting. Needs torch and numpy, and nothing
else."""
