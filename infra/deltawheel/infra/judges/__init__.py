"""Judges: adapters that score traces."""
