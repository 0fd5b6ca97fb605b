"""Looks whether everything that a wheel needs is there, and changes nothing."""
