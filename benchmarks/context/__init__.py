"""What context and prompts are worth."""
