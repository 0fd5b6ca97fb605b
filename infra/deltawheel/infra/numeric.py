"""Seeded numpy generators: the one place from which bulk random numbers come."""

import hashlib

import numpy as np

__all__ = ["generator"]


def generator(*parts: object) -> np.random.Generator:
    """Return an independent stream for a purpose and seed, alike on every machine.

    Args:
        *parts: What the stream is for, such as ``("gate", 7, "times")``. Streams of different
            parts are unrelated, so another consumer never shifts the draws of this one.
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16])))
