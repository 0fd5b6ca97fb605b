"""Slices: what a training run reads, named by their content."""

from enum import StrEnum

from pydantic import Field

from deltawheel.contracts.ids import content_id
from deltawheel.contracts.record import CanonicalDecimal, Record, UtcTime

__all__ = ["ORDER_BY", "Selector", "SliceKind", "SliceManifest", "SliceSpec"]

ORDER_BY = "order_by"
"""Stands for the rubric's weighted mean wherever a dimension may be named."""


class SliceKind(StrEnum):
    """What the rows are: pairs for DPO, or single labelled traces for KTO."""

    PREFERENCE = "preference"


class Selector(StrEnum):
    """Which pairs are taken, and how their labels are treated: one candidate and its controls."""

    TOP_DELTA = "top-delta"
    RANDOM = "random"
    SHUFFLED_LABELS = "shuffled-labels"
    EXCHANGED_SIDES = "exchanged-sides"


class SliceSpec(Record):
    """A pure description of a slice: the same store and the same spec give the same file."""

    kind: SliceKind = SliceKind.PREFERENCE
    selector: Selector = Selector.TOP_DELTA
    dimension: str = Field(default=ORDER_BY, description="Whose delta ranks the pairs.")
    share: CanonicalDecimal = Field(gt=0, le=1, description="Share of the stored pairs to take.")
    rubric_digest: str
    judge_revision: str = Field(description="Whose scores: those of two judges do not compare.")
    paired_before: UtcTime = Field(description="Pairs stored later do not belong to the slice.")
    seed: int = 0


class SliceManifest(Record):
    """What lies beside a slice's Parquet file and says what is in it."""

    spec: SliceSpec
    num_candidates: int = Field(description="Pairs that the specification could have taken.")
    num_pairs: int
    mean_delta: float = Field(description="Mean delta of the taken pairs on the ranking dimension.")
    mean_delta_of_candidates: float
    smallest_delta: float
    pair_ids_digest: str = Field(description="Digest of the taken ids in rank order.")
    file_digest: str

    @property
    def slice_id(self) -> str:
        """Two slices of the same pairs in the same order under the same spec are one slice."""
        return content_id(
            "slice",
            1,
            self.spec.kind.value,
            self.spec.selector.value,
            self.spec.dimension,
            self.spec.share,
            self.spec.rubric_digest,
            self.spec.judge_revision,
            self.spec.paired_before.isoformat(),
            self.spec.seed,
            self.pair_ids_digest,
        )
