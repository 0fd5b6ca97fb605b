"""Starts, watches, restarts and stops the processes of one wheel on this machine."""
