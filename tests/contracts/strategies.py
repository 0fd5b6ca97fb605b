"""Events of every type, drawn by hypothesis: texts, numbers and times as wild as they may be."""

from collections.abc import Mapping
from datetime import UTC, datetime

from hypothesis import strategies as st

from deltawheel.contracts.generator import Sampling
from deltawheel.contracts.judgement import Judgement, PromptFailed, Score, SlotFailed
from deltawheel.contracts.pair import PreferencePair, QuarantinedPair
from deltawheel.contracts.promotion import Promotion
from deltawheel.contracts.prompt import Prompt
from deltawheel.contracts.record import MAX_COUNT, Record
from deltawheel.contracts.trace import FinishReason, Trace
from tests.records import (
    a_judgement,
    a_pair,
    a_promotion,
    a_prompt,
    a_prompt_failure,
    a_quarantined_pair,
    a_slot_failure,
    a_trace,
    an_assignment,
)

texts = st.text(st.characters(exclude_categories=["Cs"]))
"""What JSON can carry: everything but lone surrogates; NUL and escapes are among it."""

counts = st.integers(0, MAX_COUNT)
attempts = st.integers(1, MAX_COUNT)
times = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC))
names = st.from_regex(r"\A[a-z0-9](?:[a-z0-9._-]{0,10}[a-z0-9])?\Z")
variances = st.floats(0, 1e300, allow_nan=False)
scores = st.builds(
    Score,
    mean=st.floats(1, 5),
    variance=variances,
    num_votes=attempts,
    coverage=st.none() | st.floats(0, 1),
)
samplings = st.builds(
    Sampling,
    temperature=st.decimals(0, 2, places=3),
    top_p=st.decimals("0.001", 1, places=3),
    max_tokens=attempts,
)

prompts = st.builds(
    a_prompt,
    texts.filter(bool),
    round=counts,
    domain=names,
    reference_answer=st.none() | texts,
    accepted_at=times,
)
assignments = st.builds(an_assignment, prompts)
traces = st.builds(
    lambda trace, sampling, served: trace.model_copy(
        update={"sampling": sampling, "served_model": served}
    ),
    st.builds(
        a_trace,
        assignments,
        st.integers(0, 1),
        answer=texts,
        reasoning=texts,
        completion_tokens=counts,
        finish_reason=st.sampled_from(FinishReason),
        generated_at=times,
    ),
    samplings,
    texts,
)
judgements = st.builds(
    a_judgement,
    traces,
    scores=st.dictionaries(texts, scores, min_size=1, max_size=4),
    judge_revision=texts,
    is_correct=st.none() | st.booleans(),
    judged_at=times,
)
slot_failures = st.builds(
    lambda failure, attempt: failure.model_copy(update={"attempt": attempt}),
    st.builds(a_slot_failure, assignments, counts, reason=texts, failed_at=times),
    attempts,
)
prompt_failures = st.builds(
    lambda failure, attempt: failure.model_copy(update={"attempt": attempt}),
    st.builds(a_prompt_failure, prompts, reason=texts, failed_at=times),
    attempts,
)
pairs = st.builds(
    a_pair,
    prompts,
    chosen_level=st.floats(3.1, 5),
    rejected_level=st.floats(1, 3),
    chosen_slot=st.integers(0, 1),
    chosen_answer=texts,
    rejected_answer=texts,
    paired_at=times,
)
quarantined_pairs = st.builds(
    a_quarantined_pair, pairs, expectations=st.lists(texts, min_size=1, max_size=3)
)
promotions = st.builds(a_promotion, version=names, replaces=st.none() | texts, promoted_at=times)

EVENTS: Mapping[type[Record], st.SearchStrategy[Record]] = {
    Prompt: prompts,
    Trace: traces,
    Judgement: judgements,
    SlotFailed: slot_failures,
    PromptFailed: prompt_failures,
    PreferencePair: pairs,
    QuarantinedPair: quarantined_pairs,
    Promotion: promotions,
}
