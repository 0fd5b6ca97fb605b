"""Monitoring: turns what has happened into metrics that people and alerts read."""
