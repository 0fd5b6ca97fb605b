"""Blocking calls of an asyncio handler, made in a thread."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["offload"]

P = ParamSpec("P")
T = TypeVar("T")


async def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that may block, such as the store's, without holding the loop up."""
    return await asyncio.to_thread(function, *args, **kwargs)
