"""Kills on the processes of a real wheel: nothing may be lost, and nothing stored twice."""
