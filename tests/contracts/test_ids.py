import json
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.generator import Sampling
from deltawheel.contracts.ids import canonical_json, content_id, decimal_text, seed_of
from deltawheel.contracts.prompt import Message
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.slices import SliceSpec
from tests.contracts import golden
from tests.records import a_generator, a_prompt, an_assignment

GOLDEN = golden.read()

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)


@pytest.mark.parametrize("case", GOLDEN["ids"], ids=lambda case: f"{case['id']}: {case['of']}")
def test_golden_id_of_a_record_has_not_changed(case: dict[str, Any]) -> None:
    assert golden.id_now(GOLDEN, case) == case["is"], "a breaking release: see golden.py"


def test_everything_that_names_a_thing_is_pinned() -> None:
    assert len({case["is"] for case in GOLDEN["ids"]}) >= 20
    assert {case["id"] for case in GOLDEN["ids"]} == golden.IDS.keys()
    assert {case["of"] for case in GOLDEN["ids"]} == GOLDEN["things"].keys()
    assert {kind for thing in GOLDEN["things"].values() for kind in thing} == golden.MAKERS.keys()


def test_pinned_pair_has_one_id_whoever_was_chosen() -> None:
    pair, mirror = (GOLDEN["things"][name]["PreferencePair"] for name in ("pair", "mirrored pair"))
    assert pair["chosen"]["trace"]["trace_id"] == mirror["rejected"]["trace"]["trace_id"]
    pinned = {case["of"]: case["is"] for case in GOLDEN["ids"] if case["id"] == "pair_id"}
    assert pinned["pair"] == pinned["mirrored pair"]


class LaterMessage(Message):
    name: str = "somebody"


class LaterSampling(Sampling):
    min_p: float = 0.1


class LaterRubric(Rubric):
    language: str = "en"


class LaterSpec(SliceSpec):
    max_pairs: int = 1


def test_field_that_a_later_version_adds_changes_no_id() -> None:
    prompt, assignment = a_prompt(), an_assignment()
    messages = tuple(LaterMessage(**message.model_dump()) for message in prompt.messages)
    assert prompt.model_copy(update={"messages": messages}).prompt_id == prompt.prompt_id

    generator = a_generator("strong")
    sampling = LaterSampling(**generator.sampling.model_dump())
    later = generator.model_copy(update={"sampling": sampling})
    asked = an_assignment(generators=(later, a_generator("weak")))
    assert asked.trace_id(0) == assignment.trace_id(0)

    assert LaterRubric().digest == Rubric().digest

    manifest = golden.MAKERS["SliceManifest"](GOLDEN["things"]["slice"]["SliceManifest"])
    spec = LaterSpec(**manifest.spec.model_dump())
    assert manifest.model_copy(update={"spec": spec}).slice_id == manifest.slice_id


def test_whole_record_is_refused() -> None:
    with pytest.raises(TypeError, match=r"cannot hang on a Prompt: .* records no fixed fields"):
        content_id("x", 1, [a_prompt()])


@given(values)
def test_canonical_json_reads_back_to_the_same_canonical_json(value: object) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(texts)
def test_composed_and_decomposed_text_have_one_id(text: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert content_id("prompt", 1, composed) == content_id("prompt", 1, decomposed)


@given(st.dictionaries(st.text("abc"), st.integers(), min_size=2))
def test_order_of_keys_does_not_matter(mapping: dict[str, int]) -> None:
    turned = dict(reversed(mapping.items()))
    assert content_id("x", 1, mapping) == content_id("x", 1, turned)


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1000, max_value=1000)
)
def test_trailing_zeros_of_a_decimal_do_not_matter(number: Decimal) -> None:
    assert content_id("x", 1, number) == content_id("x", 1, number * Decimal("1.0000"))


@given(st.lists(texts, min_size=1), st.lists(texts, min_size=1))
def test_different_fields_have_different_ids(first: list[str], second: list[str]) -> None:
    normal = [[unicodedata.normalize("NFC", t) for t in fields] for fields in (first, second)]
    assert (content_id("x", 1, *first) == content_id("x", 1, *second)) == (normal[0] == normal[1])


def test_kind_and_version_are_part_of_the_id() -> None:
    assert len({content_id(kind, n, "a")[-32:] for kind in ("pair", "trace") for n in (1, 2)}) == 4


@given(st.decimals(allow_nan=False, allow_infinity=False, places=40))
def test_text_of_a_decimal_is_exact_and_the_shortest(number: Decimal) -> None:
    text = decimal_text(number)
    assert Decimal(text) == number
    assert "e" not in text.lower()
    assert "." not in text or text[-1] not in ".0"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_is_short_enough_to_be_written_out_as_a_decimal(number: float) -> None:
    assert float(decimal_text(Decimal(repr(number)))) == number


@pytest.mark.parametrize(
    "number", ["1e-999999999", "1e999999999", "1e-401", "1e400", "-1e400", "0." + "1" * 401]
)
def test_decimal_too_long_to_write_out_is_refused(number: str) -> None:
    with pytest.raises(TypeError, match="digits on one side of its point: give at most 400"):
        content_id("x", 1, {"weight": Decimal(number)})


@pytest.mark.parametrize("number", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_decimal_that_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(TypeError, match="only finite decimals have a canonical text"):
        content_id("x", 1, Decimal(number))


def test_float_is_refused() -> None:
    with pytest.raises(TypeError, match="floats have no canonical text"):
        content_id("x", 1, 0.7)


@given(texts)
def test_seed_fits_a_signed_32_bit_integer(identifier: str) -> None:
    assert 0 <= seed_of(identifier) < 2**31
