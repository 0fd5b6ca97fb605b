"""The store's adapter: all ports on one SQL database."""

from typing import Self

from deltawheel.infra.store.accounts import LedgerAccounts
from deltawheel.infra.store.anchor_runs import SqlAnchorRuns
from deltawheel.infra.store.calibrations import SqlCalibrations
from deltawheel.infra.store.cycles import SqlCycleLog
from deltawheel.infra.store.deferrals import SqlDeferrals
from deltawheel.infra.store.engine import Database
from deltawheel.infra.store.evidence import LedgerEvidence
from deltawheel.infra.store.expiry import LedgerExpiry
from deltawheel.infra.store.groups import LedgerReads
from deltawheel.infra.store.halts import SqlHalts
from deltawheel.infra.store.held_events import SqlHeldEvents
from deltawheel.infra.store.judgements import SqlJudgementShelf
from deltawheel.infra.store.known_scores import SqlScoreMemory
from deltawheel.infra.store.ladder import SqlLadderRows
from deltawheel.infra.store.leases import SqlLeases
from deltawheel.infra.store.ledger import LedgerWrites
from deltawheel.infra.store.letters import SqlLetters
from deltawheel.infra.store.pairs import SqlPairShelf
from deltawheel.infra.store.pool import SqlPoolLog
from deltawheel.infra.store.unsent_letters import SqlUnsentLetters

__all__ = ["SqlStore"]


class SqlStore(
    LedgerWrites,
    SqlDeferrals,
    SqlLetters,
    LedgerReads,
    LedgerExpiry,
    LedgerAccounts,
    LedgerEvidence,
    SqlHeldEvents,
    SqlPairShelf,
    SqlJudgementShelf,
    SqlPoolLog,
    SqlLadderRows,
    SqlCycleLog,
    SqlCalibrations,
    SqlAnchorRuns,
    SqlScoreMemory,
    SqlLeases,
    SqlHalts,
    SqlUnsentLetters,
):
    """The `Store` port of one wheel. Any number of threads and processes may share a database."""

    def __init__(self, url: str, *, wheel: str, must_exist: bool = False) -> None:
        """Open the store, making folder, file and tables where they are missing.

        Args:
            url: SQLAlchemy URL, `sqlite:////path/to/store.db` or `postgresql://user@host/name`.
            wheel: whose rows this store writes and counts.
            must_exist: make nothing; a missing store is an error.

        Raises:
            ConfigError: the URL is wrong, the schema is newer than this code, or, with
                `must_exist`, no wheel has run here yet.
            DeltawheelError: the file is no database, damaged, or cannot be written.
            RetryLaterError: the database is busy or away.
        """
        super().__init__(Database(url, must_exist=must_exist), wheel=wheel)

    @classmethod
    def open_existing(cls, url: str, *, wheel: str) -> Self:
        """Open a store that is there already, for commands that read; raises as above."""
        return cls(url, wheel=wheel, must_exist=True)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()
