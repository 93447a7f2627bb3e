"""Whether data or a policy made elsewhere fits a task: environments compared, values covered by
tokens."""
