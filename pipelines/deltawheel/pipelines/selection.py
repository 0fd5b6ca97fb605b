"""Select: a pure function from store state and a slice specification to one Parquet file."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from deltawheel.contracts.clock import Random
from deltawheel.contracts.cycle import StepName
from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.ids import canonical_json, digest_of
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.promotion import Champion
from deltawheel.contracts.slices import Selector, SliceManifest, SliceSpec
from deltawheel.contracts.store import PairShelf, RankedPair
from deltawheel.pipelines.adapters import keep_adapter
from deltawheel.pipelines.context import Result, StageContext
from deltawheel.pipelines.files import read_json

__all__ = [
    "SliceRow",
    "champion_of",
    "make_slice",
    "manifest_of",
    "read_slice",
    "select",
    "take_slice",
    "write_slice",
]

SLICE_FILE: Final = "slice.parquet"
MANIFEST_FILE: Final = "manifest.json"
_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pick:
    """A taken pair, and whether its sides change places."""

    pair_id: str
    delta: float
    is_swapped: bool = False

    @property
    def labelled_delta(self) -> float:
        """The delta of what the row calls chosen over what it calls rejected."""
        return -self.delta if self.is_swapped else self.delta


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRow:
    """One pair as a trainer reads it; `prompt` is the JSON text of the messages."""

    pair_id: str
    prompt: str
    chosen: str
    rejected: str
    delta: float
    chosen_generator: str
    rejected_generator: str
    generator_delta: float


def select(context: StageContext) -> Result:
    """Take the cycle's slice, and note who is champion now: everything later refers to that one.

    Raises:
        CycleError: the judge has drifted, so that its scores do not compare; or there are too few
            pairs.
    """
    digest = context.settings.make_rubric().digest
    if drift := context.store.judge_drift(context.judge_revision, digest):
        raise CycleError(drift.sentence)
    download = context.folder / "champion"
    champion = context.registry.champion(download)
    if champion.adapter_path is not None:
        kept = keep_adapter(context.settings, Path(champion.adapter_path))
        champion = champion.model_copy(update={"adapter_path": str(kept)})
        shutil.rmtree(download)  # it holds a copy of the base, too
    manifest = take_slice(context, context.folder)
    return {
        "champion": champion.model_dump(mode="json"),
        "slice_id": manifest.slice_id,
        "selector": manifest.spec.selector.value,
        "dimension": manifest.spec.dimension,
        "num_pairs": manifest.num_pairs,
        "num_candidates": manifest.num_candidates,
        "mean_delta": manifest.mean_delta,
        "mean_delta_of_candidates": manifest.mean_delta_of_candidates,
        "smallest_delta": manifest.smallest_delta,
    }


def take_slice(context: StageContext, folder: Path) -> SliceManifest:
    """Write the slice of the context's arm into a folder."""
    settings = context.settings
    spec = SliceSpec(
        selector=context.arm.selector,
        dimension=settings.training.dimension,
        share=settings.training.top_share,
        rubric_digest=settings.make_rubric().digest,
        judge_revision=context.judge_revision,
        # Not the clock: a second attempt at this step must see the same pairs.
        paired_before=context.cycle().requested_at,
        seed=settings.training.seed,
    )
    manifest = make_slice(
        context.store,
        spec,
        folder,
        random=context.random,
        min_pairs=settings.training.min_pairs,
    )
    context.progress(f"took {manifest.num_pairs} of {manifest.num_candidates} pairs")
    return manifest


def make_slice(
    store: PairShelf, spec: SliceSpec, folder: Path, *, random: Random, min_pairs: int = 1
) -> SliceManifest:
    """Write `slice.parquet` and `manifest.json`: the same store and spec give the same bytes.

    Raises:
        CycleError: fewer than `min_pairs` would be taken.
    """
    ranked = store.ranked_pairs(
        dimension=spec.dimension,
        rubric_digest=spec.rubric_digest,
        judge_revision=spec.judge_revision,
        paired_before=spec.paired_before,
        limit=None,
    )
    num_taken = int(spec.share * len(ranked))
    if num_taken < min_pairs:
        raise CycleError(
            f"training.top_share {spec.share} of {len(ranked)} pairs is {num_taken}, but "
            f"training.min_pairs is {min_pairs}; wait for more pairs or lower it"
        )
    picks = _picks(ranked, spec, num_taken, random)
    write_slice(folder / SLICE_FILE, _rows(store, picks))
    manifest = _describe(picks, ranked, spec, folder / SLICE_FILE)
    text = manifest.model_dump_json(indent=2)
    (folder / MANIFEST_FILE).write_text(f"{text}\n", encoding="utf-8")
    return manifest


def read_slice(path: Path) -> list[SliceRow]:
    """Read a slice's rows, in rank order."""
    from pyarrow import parquet

    return [SliceRow(**row) for row in parquet.read_table(path).to_pylist()]


def write_slice(path: Path, rows: Iterator[SliceRow]) -> None:
    """Write a slice page by page, so that its size is bounded by the disk and not by memory."""
    import pyarrow
    from pyarrow import parquet

    text, number = pyarrow.string(), pyarrow.float64()
    kinds = {"delta": number, "generator_delta": number}
    names = SliceRow.__dataclass_fields__
    schema = pyarrow.schema([(name, kinds.get(name, text)) for name in names])
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:
        while page := list(islice(rows, _PAGE)):
            columns = {name: [getattr(row, name) for row in page] for name in names}
            file.write_table(pyarrow.table(columns, schema=schema))


def champion_of(context: StageContext) -> Champion:
    """Return whom the cycle's select step found to be champion."""
    folder = context.done(StepName.SELECT)
    return Champion.model_validate(read_json(folder / "result.json")["champion"])


def manifest_of(folder: Path) -> SliceManifest:
    """Read the manifest beside a slice."""
    return SliceManifest.model_validate(read_json(folder / MANIFEST_FILE))


def _picks(
    ranked: Sequence[RankedPair], spec: SliceSpec, num_taken: int, random: Random
) -> list[_Pick]:
    stream = random.seeded(f"slice {spec.seed}")
    if spec.selector in {Selector.RANDOM, Selector.SHUFFLED_LABELS}:
        drawn = sorted(ranked, key=lambda pair: pair.pair_id)
        stream.shuffle(drawn)
    else:
        drawn = list(ranked)
    return [
        _Pick(
            pair_id=pair.pair_id,
            delta=pair.delta,
            is_swapped=_is_swapped(spec.selector, stream),
        )
        for pair in drawn[:num_taken]
    ]


def _is_swapped(selector: Selector, stream: Random) -> bool:
    if selector is Selector.SHUFFLED_LABELS:
        return stream.random() < 0.5
    return selector is Selector.EXCHANGED_SIDES


def _rows(store: PairShelf, picks: Sequence[_Pick]) -> Iterator[SliceRow]:
    for start in range(0, len(picks), _PAGE):
        page = picks[start : start + _PAGE]
        pairs = store.pairs_by_id([pick.pair_id for pick in page])
        yield from (_row(pair, pick) for pair, pick in zip(pairs, page, strict=True))


def _row(pair: PreferencePair, pick: _Pick) -> SliceRow:
    chosen, rejected = pair.chosen.trace, pair.rejected.trace
    sign = 1.0
    if pick.is_swapped:
        chosen, rejected, sign = rejected, chosen, -1.0
    messages = [message.model_dump(mode="json") for message in pair.prompt.messages]
    return SliceRow(
        pair_id=pair.pair_id,
        prompt=json.dumps(messages, ensure_ascii=False, sort_keys=True),
        chosen=chosen.text,
        rejected=rejected.text,
        delta=pick.labelled_delta,
        chosen_generator=f"{chosen.generator}@{chosen.generator_revision}",
        rejected_generator=f"{rejected.generator}@{rejected.generator_revision}",
        generator_delta=sign * pair.generator_delta.estimate,
    )


def _describe(
    picks: Sequence[_Pick], ranked: Sequence[RankedPair], spec: SliceSpec, file: Path
) -> SliceManifest:
    labelled = [pick.labelled_delta for pick in picks]
    return SliceManifest(
        spec=spec,
        num_candidates=len(ranked),
        num_pairs=len(picks),
        mean_delta=sum(labelled) / len(labelled),
        mean_delta_of_candidates=sum(pair.delta for pair in ranked) / len(ranked),
        smallest_delta=min(labelled),
        pair_ids_digest=digest_of(canonical_json([pick.pair_id for pick in picks])),
        file_digest=digest_of(file.read_bytes()),
    )
