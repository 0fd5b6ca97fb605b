"""Select: the same store and specification give the same slice."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawheel.contracts.anchor_runs import AnchorRun, JudgeDrift
from deltawheel.contracts.errors import CycleError
from deltawheel.contracts.generator import GeneratorDelta
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.judgement import JudgedTrace
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.promotion import Champion
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.slices import ORDER_BY, Selector, SliceManifest, SliceSpec
from deltawheel.contracts.store import Store
from deltawheel.infra.store.store import SqlStore
from deltawheel.pipelines.adapters import ADAPTER_WEIGHTS
from deltawheel.pipelines.context import StageContext, TrainingArm
from deltawheel.pipelines.selection import (
    SLICE_FILE,
    SliceRow,
    make_slice,
    manifest_of,
    read_slice,
    select,
    take_slice,
    write_slice,
)
from tests.pipelines.fakes import (
    AT,
    EARLIER,
    MemoryRegistry,
    SeededRandom,
    Shelf,
    a_context,
    an_adapter,
    small_settings,
)
from tests.records import (
    JUDGE,
    WHEEL,
    a_judgement,
    a_paired_end,
    a_prompt,
    a_rubric,
    a_trace,
    an_assignment,
    some_scores,
)

OTHER_RUBRIC = Rubric(name="another")
MARKUP = '<think>\n"{{x}}" & <b>é</b> \u2028 𝟙\x00 \\n <|im_end|>'


def judged_pair(
    prompt: Prompt,
    *,
    level: float,
    step_coherence: float,
    rubric: Rubric,
    paired_at: datetime,
    texts: tuple[str, str] = ("shown", "hidden"),
) -> PreferencePair:
    """Pair a trace scored `level`, but `step_coherence` there, with one scored 1 throughout."""
    assignment = an_assignment(prompt, rubric=rubric)
    scores = (
        some_scores(level, rubric=rubric, step_coherence=step_coherence),
        some_scores(1.0, rubric=rubric),
    )
    traces = [a_trace(assignment, slot, answer=text) for slot, text in enumerate(texts)]
    chosen, rejected = (
        JudgedTrace(trace=trace, judgement=a_judgement(trace, scores=given, rubric=rubric))
        for trace, given in zip(traces, scores, strict=True)
    )
    deltas = rubric.deltas(chosen.judgement, rejected.judgement)
    return PreferencePair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        rubric_digest=rubric.digest,
        deltas=deltas,
        order_delta=rubric.order_delta(deltas),
        generator_delta=GeneratorDelta(estimate=1.0, stderr=0.5, ladder_revision="ladder-1"),
        accepted_at=prompt.accepted_at,
        paired_at=paired_at,
    )


@cache
def a_pair(
    number: int,
    level: float = 4.0,
    step_coherence: float = 4.0,
    *,
    rubric: str = "own",
    paired_at: datetime = EARLIER,
) -> PreferencePair:
    return judged_pair(
        a_prompt(f"{number}+1="),
        level=level,
        step_coherence=step_coherence,
        rubric=a_rubric() if rubric == "own" else OTHER_RUBRIC,
        paired_at=paired_at,
        texts=(f"shown {number}", f"hidden {number}"),
    )


def a_spec(
    selector: Selector = Selector.TOP_DELTA,
    *,
    share: str = "0.5",
    dimension: str = ORDER_BY,
    seed: int = 0,
) -> SliceSpec:
    return SliceSpec(
        selector=selector,
        dimension=dimension,
        share=Decimal(share),
        rubric_digest=a_rubric().digest,
        judge_revision=JUDGE,
        paired_before=AT,
        seed=seed,
    )


def many(num_pairs: int) -> list[PreferencePair]:
    """Pairs whose deltas fall from 4 in quarters, with ties."""
    return [a_pair(number, 5.0 - number % 12 / 4) for number in range(num_pairs)]


def a_slice(
    pairs: Sequence[PreferencePair], spec: SliceSpec, folder: Path, **choices: Any
) -> SliceManifest:
    store = cast(Store, Shelf(pairs))
    return make_slice(store, spec, folder, random=SeededRandom(), **choices)


def rows_of(pairs: Sequence[PreferencePair], spec: SliceSpec) -> list[SliceRow]:
    with a_folder() as folder:
        a_slice(pairs, spec, folder)
        return read_slice(folder / SLICE_FILE)


@contextmanager
def a_folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def delta_on(pair: PreferencePair, dimension: str) -> float:
    return pair.order_delta if dimension == ORDER_BY else pair.deltas[dimension].delta


levels = st.integers(8, 20).map(lambda quarters: quarters / 4)
worlds = st.lists(st.tuples(levels, levels), min_size=2, max_size=12).map(
    lambda scores: [a_pair(number, *given) for number, given in enumerate(scores)]
)
shares = st.integers(50, 100).map(lambda percent: str(Decimal(percent) / 100))
dimensions = st.sampled_from([ORDER_BY, "step_coherence", "factuality"])
specs = st.builds(
    a_spec,
    st.sampled_from(Selector),
    share=shares,
    dimension=dimensions,
    seed=st.integers(0, 3),
)


@settings(deadline=None, max_examples=30)
@given(worlds, specs, st.randoms(use_true_random=False))
def test_the_same_store_and_spec_give_the_same_bytes_in_whatever_order_pairs_came(
    pairs: list[PreferencePair], spec: SliceSpec, order: Any
) -> None:
    shuffled = list(pairs)
    order.shuffle(shuffled)
    with a_folder() as first, a_folder() as second:
        one, other = a_slice(pairs, spec, first), a_slice(shuffled, spec, second)
        assert one.slice_id == other.slice_id
        for path in sorted(first.iterdir()):
            assert (second / path.name).read_bytes() == path.read_bytes()
        assert manifest_of(first) == one


@settings(deadline=None, max_examples=30)
@given(worlds, shares, dimensions)
def test_top_delta_takes_exactly_the_highest_share_and_ties_by_id(
    pairs: list[PreferencePair], share: str, dimension: str
) -> None:
    rows = rows_of(pairs, a_spec(share=share, dimension=dimension))
    taken = [row.pair_id for row in rows]
    assert len(taken) == len(set(taken)) == int(Decimal(share) * len(pairs))
    by_id = {pair.pair_id: pair for pair in pairs}
    places = [(-delta_on(by_id[pair_id], dimension), pair_id) for pair_id in taken]
    left = [
        (-delta_on(pair, dimension), pair.pair_id) for pair in pairs if pair.pair_id not in taken
    ]
    assert places == sorted(places)
    assert not left or max(places) < min(left)
    assert [row.delta for row in rows] == [-negated for negated, _ in places]


@settings(deadline=None, max_examples=25)
@given(worlds, shares, st.sampled_from([Selector.RANDOM, Selector.SHUFFLED_LABELS]))
def test_a_drawn_slice_takes_its_share_of_the_candidates_and_none_twice(
    pairs: list[PreferencePair], share: str, selector: Selector
) -> None:
    taken = [row.pair_id for row in rows_of(pairs, a_spec(selector, share=share))]
    assert len(taken) == len(set(taken)) == int(Decimal(share) * len(pairs))
    assert set(taken) <= {pair.pair_id for pair in pairs}


@settings(deadline=None, max_examples=25)
@given(worlds, specs)
def test_the_manifest_says_what_is_in_the_file(
    pairs: list[PreferencePair], spec: SliceSpec
) -> None:
    with a_folder() as folder:
        manifest = a_slice(pairs, spec, folder)
        rows = read_slice(folder / SLICE_FILE)
        assert manifest.file_digest == digest_of((folder / SLICE_FILE).read_bytes())
    deltas = [row.delta for row in rows]
    candidates = [delta_on(pair, spec.dimension) for pair in pairs]
    assert manifest.spec == spec
    assert (manifest.num_pairs, manifest.num_candidates) == (len(rows), len(pairs))
    assert manifest.mean_delta == pytest.approx(sum(deltas) / len(deltas))
    assert manifest.mean_delta_of_candidates == pytest.approx(sum(candidates) / len(candidates))
    assert manifest.smallest_delta == min(deltas)


def test_a_random_slice_hangs_on_its_seed_and_on_no_delta() -> None:
    pairs = many(60)
    by_seed = [
        [row.pair_id for row in rows_of(pairs, a_spec(Selector.RANDOM, seed=seed))]
        for seed in (1, 1, 2)
    ]
    assert by_seed[0] == by_seed[1]
    assert set(by_seed[0]) != set(by_seed[2])
    top = {row.pair_id for row in rows_of(pairs, a_spec())}
    assert 5 < len(top.intersection(by_seed[0])) < 25


def test_shuffled_labels_are_the_random_slice_with_about_half_of_its_sides_exchanged() -> None:
    pairs = many(120)
    plain = rows_of(pairs, a_spec(Selector.RANDOM))
    shuffled = rows_of(pairs, a_spec(Selector.SHUFFLED_LABELS))
    assert [row.pair_id for row in shuffled] == [row.pair_id for row in plain]
    swapped = [other for row, other in zip(plain, shuffled, strict=True) if other != row]
    assert 18 < len(swapped) < 42
    assert all(row.delta < 0 for row in swapped)
    assert rows_of(pairs, a_spec(Selector.SHUFFLED_LABELS)) == shuffled
    assert rows_of(pairs, a_spec(Selector.SHUFFLED_LABELS, seed=1)) != shuffled


def test_exchanged_sides_are_the_top_slice_with_everything_on_the_other_side() -> None:
    pairs = many(20)
    top, exchanged = rows_of(pairs, a_spec()), rows_of(pairs, a_spec(Selector.EXCHANGED_SIDES))
    assert len(top) == len(exchanged) == 10
    for row, other in zip(top, exchanged, strict=True):
        assert (other.pair_id, other.prompt) == (row.pair_id, row.prompt)
        assert (other.chosen, other.rejected) == (row.rejected, row.chosen)
        assert other.chosen_generator == row.rejected_generator == "weak@r1"
        assert other.rejected_generator == row.chosen_generator == "strong@r1"
        assert (other.delta, other.generator_delta) == (-row.delta, -row.generator_delta)
        assert row.chosen.startswith("shown")
        assert row.delta > 0
        assert row.generator_delta == 1.0


@pytest.mark.parametrize("selector", Selector)
def test_nothing_stored_too_late_or_under_another_rubric_enters(selector: Selector) -> None:
    eligible = many(4)
    late = [
        a_pair(100 + minutes, 5.0, 5.0, paired_at=AT + timedelta(minutes=minutes))
        for minutes in (0, 1)
    ]
    foreign = [a_pair(200 + number, 5.0, 5.0, rubric="other") for number in range(4)]
    rows = rows_of([*late, *foreign, *eligible], a_spec(selector, share="1"))
    assert {row.pair_id for row in rows} == {pair.pair_id for pair in eligible}


def test_pairs_of_another_judge_revision_do_not_compare_and_stay_out() -> None:
    spec = a_spec(share="1")
    assert len(rows_of(many(4), spec)) == 4
    with pytest.raises(CycleError, match="of 0 pairs is 0"):
        rows_of(many(4), spec.model_copy(update={"judge_revision": "judge@2"}))


def test_a_pair_stored_right_before_the_request_enters() -> None:
    just = a_pair(1, paired_at=AT - timedelta(microseconds=1))
    assert [row.pair_id for row in rows_of([just], a_spec(share="1"))] == [just.pair_id]


def test_too_few_pairs_say_how_many_are_wanted_and_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(CycleError, match=r"0\.5 of 9 pairs is 4, but training\.min_pairs is 5"):
        a_slice(many(9), a_spec(), tmp_path, min_pairs=5)
    assert list(tmp_path.iterdir()) == []
    assert a_slice(many(10), a_spec(), tmp_path, min_pairs=5).num_pairs == 5


def test_no_pairs_at_all_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(CycleError, match=r"of 0 pairs is 0, but training\.min_pairs is 1"):
        a_slice([], a_spec(share="1"), tmp_path)


def test_the_share_is_exact_where_floats_are_not() -> None:
    """As floats, .29 × 100 is 28.999… and one pair would be missing."""
    assert len(rows_of(many(100), a_spec(share="0.29"))) == 29


def test_the_real_store_gives_the_same_slice(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)
    pairs = many(30)
    try:
        store.close_groups([a_paired_end(pair) for pair in pairs])
        late = a_pair(100, 5.0, 5.0, paired_at=AT)
        store.close_groups([a_paired_end(late)])
        for number, selector in enumerate(Selector):
            ours, theirs = tmp_path / f"ours-{number}", tmp_path / f"theirs-{number}"
            ours.mkdir()
            theirs.mkdir()
            spec = a_spec(selector, dimension="step_coherence")
            got = make_slice(store, spec, theirs, random=SeededRandom())
            assert got == a_slice(pairs, spec, ours)
    finally:
        store.close()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
rows = st.builds(
    SliceRow,
    pair_id=texts,
    prompt=texts,
    chosen=texts,
    rejected=texts,
    delta=st.floats(-4, 4),
    chosen_generator=texts,
    rejected_generator=texts,
    generator_delta=st.floats(-4, 4),
)


@settings(deadline=None, max_examples=30)
@given(st.lists(rows, max_size=5))
def test_any_text_comes_back_from_parquet_as_it_was(written: list[SliceRow]) -> None:
    with a_folder() as folder:
        write_slice(folder / SLICE_FILE, iter(written))
        assert read_slice(folder / SLICE_FILE) == written


def test_a_slice_of_many_pages_keeps_its_order(tmp_path: Path) -> None:
    written = [
        SliceRow(
            pair_id=str(number),
            prompt="[]",
            chosen="a",
            rejected="b",
            delta=1.0,
            chosen_generator="strong@1",
            rejected_generator="weak@1",
            generator_delta=2.0,
        )
        for number in range(1_201)
    ]
    write_slice(tmp_path / SLICE_FILE, iter(written))
    assert read_slice(tmp_path / SLICE_FILE) == written


def test_markup_in_prompt_and_traces_reaches_the_trainer_untouched() -> None:
    pair = judged_pair(
        a_prompt(MARKUP),
        level=4.0,
        step_coherence=4.0,
        rubric=a_rubric(),
        paired_at=EARLIER,
        texts=(f"{MARKUP} chosen", f"{MARKUP} rejected"),
    )
    (row,) = rows_of([pair], a_spec(share="1"))
    assert json.loads(row.prompt) == [{"role": "user", "content": MARKUP}]
    assert (row.chosen, row.rejected) == (f"{MARKUP} chosen", f"{MARKUP} rejected")


def a_select_context(
    home: Path, runner: asyncio.Runner, shelf: Shelf, registry: MemoryRegistry | None = None
) -> StageContext:
    settings = small_settings(home)
    context = a_context(settings, runner, pairs=(), store=shelf, registry=registry)
    context.folder.mkdir(parents=True)
    return context


def test_a_second_attempt_sees_the_same_pairs_though_new_ones_arrived(tmp_path: Path) -> None:
    shelf = Shelf(many(20))
    with asyncio.Runner() as runner:
        context = a_select_context(tmp_path, runner, shelf)
        first = select(context)
        shelf.stored = [
            *shelf.stored,
            *(a_pair(100 + number, 5.0, 5.0, paired_at=AT) for number in range(20)),
        ]
        again = context.within(context.folder.with_name("select.other"))
        again.folder.mkdir()
        assert select(again) == first
    files = [folder / SLICE_FILE for folder in (context.folder, again.folder)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert first["num_pairs"] == 10


def test_the_result_carries_the_manifest_and_the_champion(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        context = a_select_context(tmp_path, runner, Shelf(many(20)))
        result = select(context)
    manifest = manifest_of(context.folder)
    assert result["slice_id"] == manifest.slice_id
    assert result["mean_delta"] == manifest.mean_delta > result["mean_delta_of_candidates"]
    assert Champion.model_validate(result["champion"]).version is None
    assert json.loads(json.dumps(result)) == result


def test_no_slice_is_taken_while_the_judge_has_drifted(tmp_path: Path) -> None:
    digest = a_rubric().digest
    run = AnchorRun(
        judge="grader",
        judge_revision=JUDGE,
        rubric_digest=digest,
        scores={"sum": {"factuality": 5.0}},
        baseline_id="anchor-run_0",
        shifts={"factuality": 1.5},
        limits={"factuality": 0.25},
        ran_at=AT,
    )
    drift = JudgeDrift(run=run, last_good_at=EARLIER, first_bad_at=AT)
    shelf = Shelf(many(20), drifts={(JUDGE, digest): drift})
    with asyncio.Runner() as runner:
        context = a_select_context(tmp_path, runner, shelf)
        with pytest.raises(CycleError, match=r"grader .* has drifted: .* factuality by \+1\.50"):
            select(context)
        shelf.drifts = {("judge@2", digest): drift}
        assert select(context)["num_pairs"] == 10


def test_the_champions_adapter_outlives_the_attempts_folder(tmp_path: Path) -> None:
    registered = an_adapter(tmp_path / "registry", b"weights")
    standing = Champion(
        model_name="deltawheel-default", version="3", adapter_path=str(registered), lineage_depth=2
    )
    with asyncio.Runner() as runner:
        context = a_select_context(
            tmp_path, runner, Shelf(many(20)), MemoryRegistry(standing=standing)
        )
        champion = Champion.model_validate(select(context)["champion"])
    kept = Path(champion.adapter_path or "")
    assert kept.parent == (tmp_path / "state" / "adapters").resolve()
    assert not kept.is_relative_to(context.folder)
    assert sorted(path.name for path in context.folder.iterdir()) == ["manifest.json", SLICE_FILE]
    assert (kept / ADAPTER_WEIGHTS).read_bytes() == b"weights"
    assert (champion.version, champion.lineage_depth) == ("3", 2)


@pytest.mark.parametrize(
    ("arm", "selector"),
    [
        (TrainingArm.TOP_DELTA, Selector.TOP_DELTA),
        (TrainingArm.RANDOM, Selector.RANDOM),
        (TrainingArm.SHUFFLED_LABELS, Selector.SHUFFLED_LABELS),
        (TrainingArm.EXCHANGED_SIDES, Selector.EXCHANGED_SIDES),
        (TrainingArm.SFT, Selector.TOP_DELTA),
        (TrainingArm.SFT_RANDOM, Selector.RANDOM),
    ],
)
def test_each_arm_takes_its_own_slice_of_the_same_size(
    tmp_path: Path, arm: TrainingArm, selector: Selector
) -> None:
    with asyncio.Runner() as runner:
        context = a_select_context(tmp_path, runner, Shelf(many(20)))
        manifest = take_slice(context.within(context.folder, arm=arm), context.folder)
    assert manifest.spec.selector is selector
    assert manifest.num_pairs == 10
