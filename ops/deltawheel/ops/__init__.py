"""The operator's commands: everything that a person at a terminal runs."""
