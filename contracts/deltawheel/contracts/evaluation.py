"""Evaluations: champion and candidate on the same items, on the same server, in the same run."""

from enum import StrEnum

from pydantic import Field

from deltawheel.contracts.record import Name, Record

__all__ = ["Arm", "Evaluation", "ItemResult", "SuiteRole"]


class SuiteRole(StrEnum):
    """What a suite decides: gains are asked of out-of-domain, no harm of the others."""

    OUT_OF_DOMAIN = "out-of-domain"
    IN_DOMAIN = "in-domain"
    GUARD = "guard"


class Arm(StrEnum):
    """Which model answered."""

    CHAMPION = "champion"
    CANDIDATE = "candidate"


class ItemResult(Record):
    """Both arms' marks on one item. Pairing them is what makes small gains visible."""

    suite: Name
    role: SuiteRole
    item_id: str
    champion_correct: bool
    candidate_correct: bool


class Evaluation(Record):
    """All items of one cycle, and how both arms were asked."""

    cycle_id: str
    champion: str = Field(description="The model name under which the champion was asked.")
    candidate: str
    seed: int
    temperature: float
    items: tuple[ItemResult, ...]

    def of_role(self, role: SuiteRole) -> dict[str, list[ItemResult]]:
        """Return the items of each suite that has this role, in the order they were stored."""
        suites: dict[str, list[ItemResult]] = {}
        for item in self.items:
            if item.role is role:
                suites.setdefault(item.suite, []).append(item)
        return suites
