"""Stored pairs, for reading: pages, ranks and means."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import exists, func, select

from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.store import DeltaStats, PairYield, RankedPair
from deltawheel.infra.store.columns import is_key
from deltawheel.infra.store.part import Part, chunks
from deltawheel.infra.store.tables import PAIR_DELTAS, PAIRS, QUARANTINE

__all__ = ["SqlPairShelf"]


class SqlPairShelf(Part):
    """The `PairShelf` port."""

    def pair(self, pair_id: str) -> PreferencePair | None:
        """Return one pair."""
        if not is_key(pair_id):
            return None
        with self._database.reading() as connection:
            held = connection.scalar(select(PAIRS.c.payload).where(PAIRS.c.pair_id == pair_id))
        return None if held is None else PreferencePair.model_validate_json(held)

    def pairs(self, *, after: str | None, limit: int) -> list[PreferencePair]:
        """Return a page of pairs by id; `after` is the last id of the page before."""
        page = select(PAIRS.c.payload).where(PAIRS.c.wheel == self._wheel)
        if after is not None:
            page = page.where(PAIRS.c.pair_id > after)
        with self._database.reading() as connection:
            held = connection.scalars(page.order_by(PAIRS.c.pair_id).limit(limit)).all()
        return [PreferencePair.model_validate_json(payload) for payload in held]

    def pairs_by_id(self, pair_ids: Sequence[str]) -> list[PreferencePair]:
        """Return these pairs, in the order given.

        Raises:
            LookupError: one of them is not stored.
        """
        held: dict[str, str] = {}
        with self._database.reading() as connection:
            for part in chunks(pair_ids):
                some = select(PAIRS.c.pair_id, PAIRS.c.payload).where(PAIRS.c.pair_id.in_(part))
                held.update((row.pair_id, row.payload) for row in connection.execute(some))
        if missing := [pair_id for pair_id in pair_ids if pair_id not in held]:
            raise LookupError(
                f"{len(missing)} of {len(pair_ids)} pairs are not stored: {missing[0]}"
            )
        return [PreferencePair.model_validate_json(held[pair_id]) for pair_id in pair_ids]

    def quarantined(self, *, after: str | None, limit: int) -> list[QuarantinedPair]:
        """Return a page, by id, of pairs that lie in quarantine and were not released since."""
        row = QUARANTINE.c
        is_stored = exists().where(PAIRS.c.pair_id == row.pair_id).correlate(QUARANTINE)
        page = select(row.payload).where(row.wheel == self._wheel, ~is_stored)
        if after is not None:
            page = page.where(row.pair_id > after)
        with self._database.reading() as connection:
            held = connection.scalars(page.order_by(row.pair_id).limit(limit)).all()
        return [QuarantinedPair.model_validate_json(payload) for payload in held]

    def quarantined_by_id(self, pair_ids: Sequence[str]) -> dict[str, QuarantinedPair]:
        """Return those of these that were ever quarantined."""
        row = QUARANTINE.c
        mine = select(row.pair_id, row.payload).where(row.wheel == self._wheel)
        with self._database.reading() as connection:
            return {
                pair_id: QuarantinedPair.model_validate_json(payload)
                for part in chunks([pair_id for pair_id in pair_ids if is_key(pair_id)])
                for pair_id, payload in connection.execute(mine.where(row.pair_id.in_(part)))
            }

    def count_pairs(
        self, *, rubric_digest: str | None = None, since: datetime | None = None
    ) -> int:
        """Count the pairs stored under a rubric, or after a time."""
        count = select(func.count()).select_from(PAIRS).where(PAIRS.c.wheel == self._wheel)
        if rubric_digest is not None:
            count = count.where(PAIRS.c.rubric_digest == rubric_digest)
        if since is not None:
            count = count.where(PAIRS.c.paired_at > since)
        with self._database.reading() as connection:
            return connection.execute(count).scalar_one()

    def ranked_pairs(
        self,
        *,
        dimension: str,
        rubric_digest: str,
        judge_revision: str,
        paired_before: datetime,
        limit: int | None,
    ) -> list[RankedPair]:
        """Return ids by falling delta on the dimension, ties by id; `order_by` is a dimension."""
        deltas = PAIR_DELTAS.c
        ranked = (
            select(deltas.pair_id, deltas.delta)
            .where(
                deltas.wheel == self._wheel,
                deltas.rubric_digest == rubric_digest,
                deltas.judge_revision == judge_revision,
                deltas.dimension == dimension,
                deltas.paired_at < paired_before,
            )
            .order_by(deltas.delta.desc(), deltas.pair_id)
        )
        with self._database.reading() as connection:
            rows = connection.execute(ranked if limit is None else ranked.limit(limit)).all()
        return [RankedPair(pair_id=pair_id, delta=delta) for pair_id, delta in rows]

    def pair_yield(self) -> PairYield:
        """Return how many pairs there are and how many points they hold, from an index alone."""
        pair = PAIRS.c
        sums = select(
            func.count().label("num_pairs"),
            func.coalesce(func.sum(pair.order_delta), 0.0).label("sample_points"),
            func.coalesce(func.sum(pair.generator_delta), 0.0).label("generator_points"),
        ).where(pair.wheel == self._wheel)
        with self._database.reading() as connection:
            return PairYield(**connection.execute(sums).mappings().one())

    def delta_stats(self) -> list[DeltaStats]:
        """Return mean deltas per generator pair and dimension, `order_by` among them."""
        cell = (PAIRS.c.chosen_generator, PAIRS.c.rejected_generator, PAIR_DELTAS.c.dimension)
        stats = (
            select(
                *cell,
                func.count().label("num_pairs"),
                func.avg(PAIR_DELTAS.c.delta).label("mean_delta"),
                func.avg(PAIRS.c.generator_delta).label("mean_generator_delta"),
            )
            .join(PAIR_DELTAS, PAIR_DELTAS.c.pair_id == PAIRS.c.pair_id)
            .where(PAIRS.c.wheel == self._wheel)
            .group_by(*cell)
            .order_by(*cell)
        )
        with self._database.reading() as connection:
            rows = connection.execute(stats).mappings().all()
        return [DeltaStats(**row) for row in rows]
