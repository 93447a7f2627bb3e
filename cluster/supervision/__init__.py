"""What runs a run: its parts on Ray, the supervisor, the scheduler and the pool of workers."""
