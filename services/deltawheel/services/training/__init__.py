"""Training: decides when a cycle starts, and carries it through its steps, one cycle at a time."""
