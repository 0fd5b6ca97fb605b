import unicodedata
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deltawheel.contracts.prompt import Message, Prompt, PromptKey, PromptSubmission
from deltawheel.contracts.record import MAX_COUNT
from tests.contracts.strategies import names, prompts, texts
from tests.records import T0, a_prompt, seconds

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
KEYS = list(PromptSubmission.model_fields)


def accepted(body: Any, *, max_chars: int = 1_000) -> Prompt:
    submission = PromptSubmission.parse(body, max_chars=max_chars)
    return submission.accept(wheel="default", accepted_at=T0)


def refusal_of(body: Any, *, max_chars: int = 1_000) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        PromptSubmission.parse(body, max_chars=max_chars)
    return str(caught.value)


def test_text_is_short_for_one_user_message() -> None:
    whole = accepted({"messages": [{"role": "user", "content": "1+1="}]})
    assert accepted({"text": "1+1="}) == whole
    assert whole.messages == (Message(role="user", content="1+1="),)
    assert whole.domain == "general"


def test_conversation_is_kept_in_its_order() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1="},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "and 2+2="},
    ]
    kept = accepted({"messages": turns}).messages
    assert [message.model_dump() for message in kept] == turns


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "give either 'text' or 'messages', one of the two"),
        ({"text": "a", "messages": [{"role": "user", "content": "a"}]}, "give either 'text' or"),
        ({"text": ""}, "text: String should have at least 1 character"),
        ({"text": 1}, "text: Input should be a valid string"),
        ({"text": "\ud800"}, "text: Input should be a valid string"),
        ({"messages": []}, "give either 'text' or 'messages'"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content: String should"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role: Input should be"),
        (
            {"messages": [{"role": "assistant", "content": "a"}]},
            "the last of 'messages' must have the role 'user'",
        ),
        ({"text": "a", "reference_answer": "\ud800"}, "reference_answer: holds half"),
        ({"text": "a", "domain": "Sums"}, "domain: String should match pattern"),
        ({"text": "a", "round": -1}, "round: Input should be greater than or equal to 0"),
        ({"text": "a", "round": MAX_COUNT + 1}, "round: Input should be less than or equal"),
        ({"text": "a", "round": 10**30}, "round: Input should be less than or equal"),
        ({"text": "a", "round": 0.5}, "round: Input should be a valid integer"),
        ([], "Input should be a valid dictionary"),
        (None, "Input should be a valid dictionary"),
        ("text", "Input should be a valid dictionary"),
    ],
)
def test_wrong_submission_is_refused_with_one_sentence_that_names_the_place(
    body: Any, sentence: str
) -> None:
    said = refusal_of(body)
    assert said.startswith(sentence)
    assert "\n" not in said


@given(json_values | st.dictionaries(st.sampled_from(KEYS), json_values))
def test_whatever_json_a_client_sends_is_accepted_or_refused(body: Any) -> None:
    try:
        submission = PromptSubmission.parse(body, max_chars=1_000)
    except ValueError:
        return
    prompt = submission.accept(wheel="default", accepted_at=T0)
    assert Prompt.model_validate_json(prompt.model_dump_json()) == prompt


def test_length_is_counted_over_all_messages_and_the_limit_is_named() -> None:
    turns = [{"role": "user", "content": "x" * 6}] * 2
    assert accepted({"messages": turns}, max_chars=12)
    assert "12 characters, but gateway.max_prompt_chars is 11" in refusal_of(
        {"messages": turns}, max_chars=11
    )


def test_length_of_the_reference_answer_counts_too() -> None:
    body = {"text": "1+1=", "reference_answer": "2" * 10}
    assert accepted(body, max_chars=14)
    assert "14 characters" in refusal_of(body, max_chars=13)


def test_of_many_wrong_messages_only_the_first_is_described() -> None:
    """A body of 36 MB may hold millions, and each description takes a kilobyte."""
    with pytest.raises(ValidationError) as caught:
        PromptSubmission.model_validate({"messages": [1] * 1_000})
    assert len(caught.value.errors()) == 1


def test_unknown_fields_of_a_submission_are_ignored() -> None:
    assert accepted({"text": "a", "priority": 7}) == accepted({"text": "a"})


# Identity


def test_prompt_id_says_what_is_asked() -> None:
    base = {"text": "1+1="}
    others: list[dict[str, Any]] = [
        {"text": "1+2="},
        {**base, "domain": "sums"},
        {**base, "reference_answer": "2"},
        {**base, "reference_answer": ""},
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "1+1="}]},
    ]
    ids = {accepted(body).prompt_id for body in (base, *others)}
    assert len(ids) == 1 + len(others)


def test_other_wheel_asks_another_prompt() -> None:
    submission = PromptSubmission(text="1+1=")
    one, other = (submission.accept(wheel=wheel, accepted_at=T0) for wheel in ("one", "other"))
    assert one.prompt_id != other.prompt_id


@given(prompts)
def test_round_and_time_are_no_part_of_what_is_asked(prompt: Prompt) -> None:
    later = prompt.model_copy(update={"round": prompt.round + 1, "accepted_at": seconds(9)})
    assert later.prompt_id == prompt.prompt_id
    assert later.key == PromptKey(prompt.prompt_id, prompt.round + 1)
    assert later.key != prompt.key


@given(texts.filter(bool), names)
def test_composed_and_decomposed_text_are_one_prompt(text: str, domain: str) -> None:
    composed, decomposed = (
        a_prompt(unicodedata.normalize(form, text), domain=domain) for form in ("NFC", "NFD")
    )
    assert composed.prompt_id == decomposed.prompt_id


def test_prompt_id_on_the_wire_is_not_believed() -> None:
    forged = {**a_prompt().model_dump(), "prompt_id": "prompt_of_somebody_else"}
    assert Prompt.model_validate(forged).prompt_id == a_prompt().prompt_id


def test_accepted_at_is_kept_in_utc() -> None:
    east = seconds(0).astimezone(timezone(timedelta(hours=9)))
    prompt = PromptSubmission(text="a").accept(wheel="default", accepted_at=east)
    assert prompt.accepted_at == T0
    assert prompt.accepted_at.utcoffset() == timedelta(0)
