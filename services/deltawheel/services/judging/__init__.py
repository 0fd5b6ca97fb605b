"""Judging: scores each trace on every dimension of the rubric, as it arrives."""
