"""What model servers answer, read: completions, refusals, and what each of them means."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from deltawheel.contracts.errors import ForeignModelError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ports import Completion
from deltawheel.contracts.record import Count
from deltawheel.contracts.trace import FinishReason

__all__ = [
    "AnswerPart",
    "Asked",
    "Reply",
    "Usage",
    "completion_of",
    "parsed",
    "refusal_of",
    "require_model",
    "weights_of",
]

_SHOWN_CHARS: Final = 300
_FINISH: Final = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
_BROKEN_OFF: Final = frozenset({"abort", "error"})
_BUSY: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whom a request asks; `key` is where the settings name it, as in `generators.strong`."""

    name: str
    model: str
    revision: str
    key: str

    @classmethod
    def generator(cls, generator: Generator) -> "Asked":
        """Return how a member of the pool is asked."""
        return cls(
            name=generator.name,
            model=generator.model,
            revision=generator.revision,
            key=f"generators.{generator.name}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A server's answer to one request; `is_cut` says that it was longer than anybody reads."""

    status: int
    body: bytes
    url: str
    retry_after: str | None = None
    is_cut: bool = False

    @property
    def is_unknown_model(self) -> bool:
        """Whether the server says that it has no such model; a wrong path is 404 as well."""
        return self.status == 404 and "model" in f"{self.said} {self._error_code}".lower()

    @property
    def said(self) -> str:
        """What the server says of an error, in one short line, without any text of ours.

        Validation errors of FastAPI repeat the request: of those, only place and kind are kept.
        """
        content = self._json()
        if not isinstance(content, dict):
            return _short(self.body.decode(errors="replace")) if content is None else ""
        error = content.get("error", content)
        if isinstance(error, dict):
            error = error.get("message", error.get("detail", ""))
        if isinstance(error, list):
            error = "; ".join(_place(fault) for fault in error)
        return _short(str(error).split("'input':")[0])

    @property
    def answers(self) -> list[str]:
        """The texts of the choices, to be looked at; of anything else, what the server says."""
        content = self._json()
        choices = content.get("choices") if isinstance(content, dict) else None
        if not isinstance(choices, list):
            return [self.said]
        messages = (choice.get("message") for choice in choices if isinstance(choice, dict))
        return [str(it.get("content")) for it in messages if isinstance(it, dict)]

    @property
    def num_tokens(self) -> int:
        """Tokens read and written, as the server counts them; 0 where it does not say."""
        content = self._json()
        usage = content.get("usage") if isinstance(content, dict) else None
        counts = usage if isinstance(usage, dict) else {}
        numbers = (counts.get(key) for key in ("prompt_tokens", "completion_tokens"))
        return sum(number for number in numbers if isinstance(number, int))

    @property
    def _error_code(self) -> str:
        content = self._json()
        error = content.get("error") if isinstance(content, dict) else None
        return str(error.get("code")) if isinstance(error, dict) else ""

    def _json(self) -> object:
        try:
            content: object = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return content


def _short(text: str) -> str:
    """Return one short line that can be stored: half a surrogate, as JSON may hold, cannot."""
    return " ".join(text.split())[:_SHOWN_CHARS].encode(errors="replace").decode()


def _place(fault: object) -> str:
    if not isinstance(fault, dict):
        return ""
    loc = fault.get("loc")
    where = ".".join(map(str, loc if isinstance(loc, list) else ()))
    return f"{where}: {fault.get('msg', '')}"


def refusal_of(reply: Reply, asked: Asked) -> InvalidRecordError | RetryLaterError:
    """Return the error that an answer other than 200 means.

    What an operator can put right (a key, a path) is tried again: no work is lost by it. What
    the server says of this very request will not change.
    """
    name, status = asked.name, reply.status
    if status in (401, 403):
        return RetryLaterError(
            f"{name} refuses the key ({status}): set the environment variable that "
            f"{asked.key}.api_key_env names, and restart"
        )
    if status in _BUSY or status >= 500:
        return RetryLaterError(
            f"{name} is busy or failing ({status}: {reply.said})",
            retry_after_s=_seconds(reply.retry_after),
        )
    if reply.is_unknown_model:
        return InvalidRecordError(
            f"revision {asked.revision} of {name} is no longer served ({reply.said})"
        )
    if status in (404, 405):
        return RetryLaterError(
            f"{name}: there is no {reply.url} ({status}): {asked.key}.endpoint must be the base "
            "URL of the API, which mostly ends in /v1"
        )
    return InvalidRecordError(f"{name} refuses the request ({status}: {reply.said})")


def _seconds(retry_after: str | None) -> float | None:
    """Read HTTP's Retry-After: seconds, or a date; None where it says nothing readable."""
    if retry_after is None:
        return None
    try:
        after_s = float(retry_after)
    except ValueError:
        try:
            until = parsedate_to_datetime(retry_after)
        except (ValueError, OverflowError):
            return None
        aware = until if until.tzinfo else until.replace(tzinfo=UTC)
        after_s = (aware - datetime.now(UTC)).total_seconds()
    return max(0.0, after_s) if math.isfinite(after_s) else None


class AnswerPart(BaseModel):
    """A part of what a server answers; what it says besides is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Message(AnswerPart):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(AnswerPart):
    message: _Message
    finish_reason: str | None = None


class Usage(AnswerPart):
    """How many tokens were read and written."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0


class _Answer(AnswerPart):
    model: str
    choices: tuple[_Choice]
    usage: Usage | None = None


_THINK_BEGIN: Final = "<think>"
_THINK_END: Final = "</think>"


def _told_apart(message: _Message) -> tuple[str, str]:
    """Return reasoning and answer.

    Templates that put the opening tag into the prompt leave a text that begins in the middle of
    its thoughts, and one that was cut off among them never closes the tag.
    """
    content = message.content or ""
    if given := message.reasoning or message.reasoning_content:
        return given, content
    opening, is_open = content.lstrip(), content.lstrip().startswith(_THINK_BEGIN)
    thoughts, closing, answer = opening.removeprefix(_THINK_BEGIN).partition(_THINK_END)
    if closing:
        return thoughts.strip(), answer.lstrip()
    return (thoughts.strip(), "") if is_open else ("", content)


A = TypeVar("A", bound=BaseModel)


def parsed(reply: Reply, form: type[A], asked: Asked) -> A:
    """Read the body of an answer with status 200 as this form.

    Raises:
        InvalidRecordError: it is something else, or too long.
    """
    if reply.is_cut:
        raise InvalidRecordError(
            f"{asked.name} answered with more than {len(reply.body) // 10**6} MB, and nobody reads "
            "that: lower the longest answer that it is asked for (max_tokens)"
        )
    try:
        return form.model_validate_json(reply.body)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "body"
        raise InvalidRecordError(
            f"{asked.name} answered with something that is no chat completion "
            f"({where}: {fault['msg']})"
        ) from None


def require_model(served: str, asked: Asked) -> None:
    """Make sure who has answered, for what it wrote must name who really did.

    Raises:
        ForeignModelError: it was another model; the settings name it otherwise.
    """
    if served != asked.model:
        raise ForeignModelError(
            f"{asked.name} was asked as {asked.model!r}, but {_short(served)!r} answered: name the "
            f"model exactly in {asked.key}.model"
        )


def completion_of(reply: Reply, asked: Asked) -> Completion:
    """Read an answer with status 200.

    Where the server does not tell reasoning and answer apart, tags in the text do.

    Raises:
        InvalidRecordError: it has not the form that the API promises.
        RetryLaterError: the server broke the answer off, as vLLM does when it stops; or another
            model wrote it.
    """
    answer = parsed(reply, _Answer, asked)
    require_model(answer.model, asked)
    [choice] = answer.choices
    if choice.finish_reason in _BROKEN_OFF:
        raise RetryLaterError(f"{asked.name} broke its answer off ({choice.finish_reason})")
    message, usage = choice.message, answer.usage or Usage()
    reasoning, text = _told_apart(message)
    return Completion(
        reasoning=reasoning,
        answer=text,
        served_model=answer.model,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        finish_reason=_FINISH.get(choice.finish_reason or "", FinishReason.OTHER),
    )


class _Listed(AnswerPart):
    id: str
    root: str | None = None


class _Models(AnswerPart):
    data: tuple[_Listed, ...] = ()


def weights_of(reply: Reply, model: str) -> str | None:
    """Return which weights a server's list of models names for one, if it says so."""
    try:
        listed = _Models.model_validate_json(reply.body)
    except ValidationError:
        return None
    return next((it.root for it in listed.data if it.id == model), None)
