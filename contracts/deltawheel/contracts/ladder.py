"""The capability ladder: how capable each generator is in a domain, and how sure that is.

Its unit is the logit: a generator one higher than another has e times its odds of being right on
a prompt of middling ease, and of being preferred to it. Three things are known, and kept apart:

- the *prior*, as the settings declare it;
- the *probe*: right answers to held-out prompts that a program verifies, in a Rasch model whose
  ease of the domain is free, so that only differences between its generators count;
- *judged work*: who was chosen over whom among the wheel's own pairs, in a Bradley–Terry model.

The estimate is the prior updated by the probe. Judged work updates it only where the settings say
so: a rating made of the judge's own scores is the sample delta again under another name, and pairs
selected by both would be selected twice by the same opinion (ARCHITECTURE §6).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf, log, sqrt
from statistics import fmean
from typing import Final

from deltawheel.contracts.generator import Generator, GeneratorDelta
from deltawheel.contracts.ids import content_id
from deltawheel.contracts.logistic import Belief, Beliefs, Outcomes, update

__all__ = [
    "NO_EVIDENCE",
    "Contest",
    "Ladder",
    "LadderEvidence",
    "ProbeCount",
    "Rating",
    "UpdateBy",
]

_EASE: Final = "ease of the domain"
_JEFFREYS: Final = 0.5
"""Added to right and wrong answers: without it, all right would be infinitely capable."""
_SPREAD: Final = 2.0
"""Standard deviation of capabilities where judged work is read without the declared priors."""
_OF_THE_PRIOR: Final = "declared-prior"


class UpdateBy(StrEnum):
    """What the declared prior is updated by."""

    PROBE = "probe"
    JUDGED = "judged"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCount:
    """How many of so many held-out prompts of a domain one generator (`name@revision`) got."""

    reference: str
    domain: str
    num_items: int
    num_right: int

    @property
    def log_odds(self) -> Belief:
        """Log-odds of a right answer, with Jeffreys' half a pseudo-answer on either side."""
        right = self.num_right + _JEFFREYS
        wrong = self.num_items - self.num_right + _JEFFREYS
        return Belief(log(right / wrong), sqrt(1 / right + 1 / wrong))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Judged work of two generators on the same prompts of a domain, in no particular order."""

    first: str
    second: str
    domain: str
    wins: int
    losses: int
    ties: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderEvidence:
    """All that was observed; its order and how it is divided into rows mean nothing."""

    probes: Sequence[ProbeCount] = ()
    contests: Sequence[Contest] = ()


NO_EVIDENCE: Final = LadderEvidence()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """One generator's place on a domain's ladder; `probe` and `judged` are None if there is none.

    Both are on the ladder's scale, less what is common to the domain, and neither holds the prior.
    """

    generator: Generator
    prior: Belief
    probe: Belief | None
    judged: Belief | None
    num_items: int
    num_right: int
    num_judged: int
    estimate: float
    stderr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The ratings of one domain by generator reference, at one state of the evidence.

    `revision` names that state, so that a stored delta says which ladder it was read from.
    """

    domain: str
    ratings: Mapping[str, Rating]
    scale: str
    revision: str
    beliefs: Beliefs

    @classmethod
    def of(
        cls,
        members: Sequence[Generator],
        *,
        domain: str,
        evidence: LadderEvidence = NO_EVIDENCE,
        update_by: UpdateBy = UpdateBy.PROBE,
        pool_revision: str,
    ) -> "Ladder":
        """Rate the members by what is known of exactly these revisions in exactly this domain."""
        members = sorted(members, key=lambda member: member.reference)
        known = {member.reference for member in members}
        counts = _counts(evidence.probes, known, domain)
        contests = _contests(evidence.contests, known, domain)
        priors = {it.reference: Belief(it.capability, it.capability_stderr) for it in members}
        probed = _probed(priors, counts)
        beliefs, scale = update(priors, ()), _OF_THE_PRIOR
        if update_by is UpdateBy.PROBE and counts:
            beliefs, scale = probed, f"{_OF_THE_PRIOR}+probe"
        elif update_by is UpdateBy.JUDGED and contests:
            beliefs, scale = update(priors, _bouts(contests)), f"{_OF_THE_PRIOR}+judged"
        judged = _judged_alone(priors, contests)
        ratings = {
            it.reference: _rating(it, beliefs, probed, counts, judged, contests) for it in members
        }
        revision = pool_revision
        if scale != _OF_THE_PRIOR:
            revision = _revision(pool_revision, domain, scale, counts, contests)
        return cls(domain=domain, ratings=ratings, scale=scale, revision=revision, beliefs=beliefs)

    def ranked(self, members: Iterable[Generator]) -> list[Generator]:
        """Return these members, most capable in this domain first; equals by name."""
        return sorted(members, key=lambda it: (-self.ratings[it.reference].estimate, it.name))

    def delta(self, stronger: Generator, weaker: Generator) -> GeneratorDelta:
        """Return how much more capable one is than the other, as the ladder stands.

        What is uncertain of both alike, such as the ease of the domain, cancels in the error.
        """
        gap = self.beliefs.difference(stronger.reference, weaker.reference)
        return GeneratorDelta(
            estimate=gap.mean, stderr=gap.stderr, scale=self.scale, ladder_revision=self.revision
        )


_Count = tuple[int, int]
"""Items and right answers."""
_Bouts = tuple[int, int, int]
"""Wins of the first by name, its losses, and ties."""


def _counts(probes: Iterable[ProbeCount], known: set[str], domain: str) -> dict[str, _Count]:
    totals: dict[str, _Count] = {}
    for it in probes:
        if it.domain == domain and it.reference in known and it.num_items:
            items, right = totals.get(it.reference, (0, 0))
            totals[it.reference] = (items + it.num_items, right + it.num_right)
    return totals


def _contests(
    contests: Iterable[Contest], known: set[str], domain: str
) -> dict[tuple[str, str], _Bouts]:
    totals: dict[tuple[str, str], _Bouts] = {}
    for it in contests:
        if it.domain != domain or it.first == it.second or not {it.first, it.second} <= known:
            continue
        first, second = sorted((it.first, it.second))
        won, lost = (it.wins, it.losses) if it.first == first else (it.losses, it.wins)
        wins, losses, ties = totals.get((first, second), (0, 0, 0))
        totals[first, second] = (wins + won, losses + lost, ties + it.ties)
    return {two: bouts for two, bouts in totals.items() if any(bouts)}


def _probed(priors: Mapping[str, Belief], counts: Mapping[str, _Count]) -> Beliefs:
    """Update the priors by right answers; the ease of the domain is whatever these say."""
    if not counts:
        return update(priors, ())
    outcomes = [
        Outcomes(
            coefficients={reference: 1.0, _EASE: 1.0},
            successes=right + _JEFFREYS,
            failures=items - right + _JEFFREYS,
        )
        for reference, (items, right) in sorted(counts.items())
    ]
    return update({**priors, _EASE: Belief(0.0, inf)}, outcomes)


def _bouts(contests: Mapping[tuple[str, str], _Bouts]) -> list[Outcomes]:
    return [
        Outcomes(
            coefficients={first: 1.0, second: -1.0},
            successes=wins + ties / 2,
            failures=losses + ties / 2,
        )
        for (first, second), (wins, losses, ties) in sorted(contests.items())
    ]


def _judged_alone(
    priors: Mapping[str, Belief], contests: Mapping[tuple[str, str], _Bouts]
) -> Beliefs | None:
    """Rate by judged work and nothing else, around the middle of those who have any.

    A wide common prior keeps one who has only ever won finite.
    """
    if not contests:
        return None
    judged = sorted({reference for two in contests for reference in two})
    middle = fmean(priors[reference].mean for reference in judged)
    return update({it: Belief(middle, _SPREAD) for it in judged}, _bouts(contests))


def _rating(
    generator: Generator,
    beliefs: Beliefs,
    probed: Beliefs,
    counts: Mapping[str, _Count],
    judged: Beliefs | None,
    contests: Mapping[tuple[str, str], _Bouts],
) -> Rating:
    reference = generator.reference
    estimate, stderr = beliefs.of(reference)
    items, right = counts.get(reference, (0, 0))
    probe = None
    if items:
        log_odds, error = ProbeCount(
            reference=reference, domain="", num_items=items, num_right=right
        ).log_odds
        probe = Belief(log_odds - probed.means[_EASE], error)
    num_judged = sum(sum(bouts) for two, bouts in contests.items() if reference in two)
    return Rating(
        generator=generator,
        prior=Belief(generator.capability, generator.capability_stderr),
        probe=probe,
        judged=judged.of(reference) if judged is not None and num_judged else None,
        num_items=items,
        num_right=right,
        num_judged=num_judged,
        estimate=estimate,
        stderr=stderr,
    )


def _revision(
    pool_revision: str,
    domain: str,
    scale: str,
    counts: Mapping[str, _Count],
    contests: Mapping[tuple[str, str], _Bouts],
) -> str:
    """Name the ladder by everything that its estimates hang on."""
    is_probed = scale.endswith("probe")
    rows = counts if is_probed else contests
    return content_id(
        "ladder", 1, pool_revision, domain, scale, [[key, row] for key, row in sorted(rows.items())]
    )
