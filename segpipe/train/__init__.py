"""Training: the one loop, its optimiser and schedule, and where it runs (a plain process or Ray Train)."""
