"""Batch stages of a training cycle, and the builder of the sandbox world."""
