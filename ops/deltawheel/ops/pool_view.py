"""The pool as it is shown: each member with how it came in, what it may take and has taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from deltawheel.contracts.generator import Generator, PoolEvent
from deltawheel.contracts.pool import Pool

if TYPE_CHECKING:
    from deltawheel.contracts.store import Store

__all__ = ["COLUMNS", "PoolView", "limits_of", "price_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """The pool at one moment, with the tokens that its members have taken on that UTC day."""

    log: Sequence[PoolEvent]
    pool: Pool
    tokens_today: Mapping[str, int]

    @classmethod
    def of(cls, store: "Store", *, at: datetime) -> Self:
        """Read it."""
        log = store.pool_log()
        midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
        taken = {it.generator: it.tokens for it in store.member_tokens(since=midnight)}
        return cls(log=log, pool=Pool.from_log(log), tokens_today=taken)

    def told(self, member: Generator) -> dict[str, Any]:
        """Return all of a member, for machines."""
        came_by = self.pool.came_by.get(member.name)
        return {
            **member.model_dump(mode="json"),
            "came_by": came_by.value if came_by else None,
            "absent": self.pool.absent.get(member.name),
            "tokens_today": self.tokens_today.get(member.name, 0),
        }

    def row(self, member: Generator) -> tuple[object, ...]:
        """Return a member's line of the table."""
        told = self.told(member)
        return (
            member.name,
            member.model,
            member.revision[:23],
            f"{member.capability:g} ± {member.capability_stderr:g}",
            member.lineage_depth,
            told["came_by"],
            member.family or "-",
            "-" if member.size_b is None else f"{member.size_b:g}",
            member.role.value,
            ", ".join(member.domains) if member.domains else "all",
            limits_of(member),
            told["tokens_today"],
            price_of(member),
            told["absent"] or "-",
        )


COLUMNS = (
    "generator",
    "model",
    "revision",
    "capability",
    "lineage",
    "came by",
    "family",
    "size",
    "role",
    "domains",
    "limits",
    "tokens today",
    "price",
    "away because",
)


def limits_of(member: Generator) -> str:
    """Return what a member may take, in words."""
    limits = []
    if member.max_in_flight is not None:
        limits.append(f"{member.max_in_flight} at once")
    if member.max_tokens_per_day is not None:
        limits.append(f"{member.max_tokens_per_day:,} tokens a day")
    return ", ".join(limits) or "-"


def price_of(member: Generator) -> str:
    """Return what a million tokens cost, read and written."""
    if not member.prompt_price and not member.completion_price:
        return "-"
    return f"{member.prompt_price} + {member.completion_price}"
