"""Scores that judges have given before."""

from collections.abc import Sequence

from sqlalchemy import select

from deltawheel.contracts.known_scores import KnownScores
from deltawheel.infra.store.judge_tables import KNOWN_SCORES
from deltawheel.infra.store.part import Part, chunks, first_writers

__all__ = ["SqlScoreMemory"]


class SqlScoreMemory(Part):
    """The `ScoreMemory` port."""

    def known_scores(self, ids: Sequence[str]) -> dict[str, KnownScores]:
        """Return those that are known of these."""
        row = KNOWN_SCORES.c
        with self._database.reading() as connection:
            return {
                known.scores_id: known
                for part in chunks(ids)
                for payload in connection.scalars(
                    select(row.payload).where(row.scores_id.in_(part))
                )
                if (known := KnownScores.model_validate_json(payload))
            }

    def add_known_scores(self, known: Sequence[KnownScores]) -> list[KnownScores]:
        """Store some; return what the store holds under their ids, in the order given."""
        rows = [
            {
                "wheel": self._wheel,
                "scores_id": each.scores_id,
                "judge_revision": each.judge_revision,
                "scored_at": each.scored_at,
                "payload": each.model_dump_json(),
            }
            for each in known
        ]
        with self._database.writing() as connection:
            return first_writers(connection, KNOWN_SCORES, rows, known)
