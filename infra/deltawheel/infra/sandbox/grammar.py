"""Problems and solutions of the sandbox world: what a prompt may say, and what solvers answer.

A problem is a chain worked left to right, modulo 100: a first operand of 0–99, then two or three
operations with one digit each. ``17+8*3=`` asks for ``(17 + 8) * 3``. A *stepwise* solution shows
the way (``17+8=25;25*3=75;A:75``), a *shortcut* only the answer (``A:75``).

One prompt in eight is withheld by a hash of its text: nothing is ever trained on it or generated
from it, so evaluation items can be drawn afresh at any time and are never in the training data.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol, Self

MODULUS: Final = 100
MIN_STEPS: Final = 2
MAX_STEPS: Final = 3
WITHHELD_BUCKETS: Final = 8
MAX_SUITE_ITEMS: Final = 10_000

OPERATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "+": "sum",
        "-": "difference",
        "*": "product",
        "M": "the larger of the two",
        "m": "the smaller of the two",
    }
)

_PROMPT: Final = re.compile(r"(0|[1-9][0-9]?)((?:[-+*Mm][0-9]){2,3})=")


class Family(StrEnum):
    """The kinds of problem, by the operations that a chain is made of."""

    IN_DOMAIN = "in_domain"
    TIMES = "times"
    MIXED = "mixed"
    GUARD = "guard"

    @property
    def operations(self) -> str:
        """The operations that a chain of this family draws from."""
        return _FAMILY_OPERATIONS[self]

    def has(self, operations: Sequence[str]) -> bool:
        """Say whether a chain with these operations is of this family.

        Mixed chains need at least one product and at least one sum or difference; the other
        families only exclude foreign operations.
        """
        drawn = set(operations)
        if not drawn <= set(self.operations):
            return False
        return self is not Family.MIXED or ("*" in drawn and len(drawn) > 1)


_FAMILY_OPERATIONS: Final[Mapping[Family, str]] = MappingProxyType(
    {Family.IN_DOMAIN: "+-", Family.TIMES: "*", Family.MIXED: "+-*", Family.GUARD: "Mm"}
)

SUITES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        "in_domain": Family.IN_DOMAIN,
        "out_of_domain_times": Family.TIMES,
        "out_of_domain_mixed": Family.MIXED,
        "guard": Family.GUARD,
    }
)
"""The evaluation suites. Only in-domain problems are ever prompts of preference data."""


class SupportsRandom(Protocol):
    """The draws that sampling needs; ``random.Random`` and the Random port's streams have them."""

    def random(self) -> float:
        """Draw from [0, 1)."""
        ...

    def randrange(self, start: int, stop: int, /) -> int:
        """Draw an integer of start ≤ n < stop."""
        ...

    def choice(self, seq: Sequence[str], /) -> str:
        """Draw one element."""
        ...


def seeded_rng(*parts: object) -> SupportsRandom:
    """Give an independent stream for a purpose and seed, alike on every machine and Python.

    Args:
        *parts: What the stream is for, such as ``("suite", "guard", 7)``. Streams of different
            parts are unrelated, so adding a consumer never shifts the draws of another.
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return random.Random(int.from_bytes(digest))


def apply_operation(left: int, operation: str, right: int) -> int:
    """Work one operation modulo 100.

    Raises:
        ValueError: The operation is not one of `OPERATIONS`.
    """
    match operation:
        case "+":
            return (left + right) % MODULUS
        case "-":
            return (left - right) % MODULUS
        case "*":
            return left * right % MODULUS
        case "M":
            return max(left, right) % MODULUS
        case "m":
            return min(left, right) % MODULUS
    raise ValueError(f"unknown operation {operation!r}; use one of {' '.join(OPERATIONS)}")


def apply_carelessly(left: int, operation: str, right: int) -> int:
    """Work one operation with the flaw: each digit by itself, the carry or borrow forgotten.

    ``17+8`` gives 15 and ``23-8`` gives 25. Where nothing is carried the result is right.
    """
    if operation not in "+-*":
        return apply_operation(left, operation, right)
    tens, units = divmod(left, 10)
    units = apply_operation(units, operation, right) % 10
    if operation == "*":
        tens = tens * right % 10
    return tens * 10 + units


@dataclass(frozen=True, slots=True)
class Problem:
    """One chain of operations; its text is the prompt.

    Args:
        first: The first operand, 0–99.
        steps: Two or three pairs of an operation and its right operand, 0–9.
    """

    first: int
    steps: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        if _PROMPT.fullmatch(self.text) is None:
            raise ValueError(
                f"{self.text!r} is not a sandbox problem: it needs a first operand of 0-99 and "
                f"{MIN_STEPS} or {MAX_STEPS} operations of {' '.join(OPERATIONS)} "
                "with one digit each, as in '17+8*3='"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a prompt such as ``17+8*3=``, in exactly the form that `text` writes.

        Raises:
            ValueError: The text is not a problem of this world; the message shows the form.
        """
        found = _PROMPT.fullmatch(text)
        if found is None:
            shown = text if len(text) <= 40 else f"{text[:40]}…"
            raise ValueError(f"{shown!r} is not a sandbox prompt; expected a form like '17+8*3='")
        first, chain = found.groups()
        steps = tuple((chain[at], int(chain[at + 1])) for at in range(0, len(chain), 2))
        return cls(int(first), steps)

    @property
    def text(self) -> str:
        """The prompt."""
        return f"{self.first}{''.join(f'{op}{right}' for op, right in self.steps)}="

    @property
    def answer(self) -> int:
        """The right answer, 0–99."""
        value = self.first
        for operation, right in self.steps:
            value = apply_operation(value, operation, right)
        return value


def render_solution(
    problem: Problem, *, is_stepwise: bool, slips: Sequence[bool] = (False,) * MAX_STEPS
) -> str:
    """Write a solution, flawless unless told where to slip.

    Args:
        problem: What to solve.
        is_stepwise: Show every step before the answer, or only the answer.
        slips: For each operation in turn, whether to forget its carry. A slip on an operation
            without a carry changes nothing; later steps go on from the slipped value.
    """
    value, parts = problem.first, []
    for (operation, right), slip in zip(problem.steps, slips, strict=False):
        work = apply_carelessly if slip else apply_operation
        result = work(value, operation, right)
        parts.append(f"{value}{operation}{right}={result};")
        value = result
    return f"{''.join(parts) if is_stepwise else ''}A:{value}"


def is_withheld(text: str) -> bool:
    """Say whether a prompt is kept for evaluation: one prompt in eight, by the hash of its text."""
    return hashlib.sha256(text.encode()).digest()[0] % WITHHELD_BUCKETS == 0


def sample_problem(rng: SupportsRandom, family: Family, *, withheld: bool) -> Problem:
    """Draw one problem of a family.

    Args:
        rng: Where the draws come from; the same stream gives the same problems.
        family: The kind of problem.
        withheld: True for evaluation items; False for anything that is trained on or generated
            from. The two never overlap.
    """
    while True:
        num_steps = rng.randrange(MIN_STEPS, MAX_STEPS + 1)
        first = rng.randrange(0, MODULUS)
        operations = [rng.choice(family.operations) for _ in range(num_steps)]
        problem = Problem(first, tuple((op, rng.randrange(0, 10)) for op in operations))
        if family.has(operations) and is_withheld(problem.text) is withheld:
            return problem


def suite_problems(suite: str, num_items: int, *, seed: int) -> tuple[Problem, ...]:
    """Draw a suite's distinct evaluation items, all withheld, always the same for one seed.

    Fewer items of the same suite and seed are a prefix of more.

    Raises:
        ValueError: The suite is unknown, or more than `MAX_SUITE_ITEMS` are asked for (the
            smallest suite has about 13,700 withheld problems).
    """
    if suite not in SUITES:
        raise ValueError(f"unknown suite {suite!r}; use one of {', '.join(SUITES)}")
    if not 0 <= num_items <= MAX_SUITE_ITEMS:
        raise ValueError(f"num_items is {num_items}; use 0 to {MAX_SUITE_ITEMS}")
    rng = seeded_rng("suite", suite, seed)
    problems: dict[Problem, None] = {}
    while len(problems) < num_items:
        problems[sample_problem(rng, SUITES[suite], withheld=True)] = None
    return tuple(problems)
