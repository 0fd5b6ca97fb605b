"""Judging the judge: anchors are judged again and again, and compared with what they scored."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import fmean
from typing import Final

from deltawheel.contracts.anchor_runs import AnchorEntry, AnchorRun, AnchorVerdict
from deltawheel.contracts.anchors import AnchorCase
from deltawheel.contracts.calibration import Calibration
from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import DeltawheelError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.ports import Assessment, Judge, Telemetry
from deltawheel.contracts.prompt import Prompt, PromptSubmission
from deltawheel.contracts.record import Record
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Store
from deltawheel.contracts.trace import Trace
from deltawheel.infra import wiring
from deltawheel.infra.judges.hand_written import hand_written
from deltawheel.services.runtime.handler import Tick
from deltawheel.services.runtime.offload import offload

__all__ = ["AnchorWatch"]

log = logging.getLogger("deltawheel.judging")

_LEASE: Final = "anchors"
_LEASE_FOR: Final = timedelta(hours=1)
"""Longer than the slowest baseline; if its holder dies, others wait so long, and nothing more."""
_LOOK_EVERY_S: Final = 60.0
_AT_ONCE: Final = 8
"""Texts judged at the same time: traces wait for the same judge, and are in more of a hurry."""
_BASELINE_REPEATS: Final = 3
"""A baseline is judged so often: all later runs are compared with it, and it calibrates besides."""

_TRIES: Final = 3
"""Times that a text is asked about: one answer in a hundred that cannot be read ends no run."""

_Scores = Mapping[str, float]


@dataclass(slots=True, kw_only=True)
class AnchorWatch:
    """Judges anchors when they are due, and says whether the judge has moved.

    What is due is read from the store, so that any number of members judge them once; the first
    run of a judge's revision under a rubric is its baseline. `judge` must be one that really asks:
    scores from a cache would never move.
    """

    store: Store
    judge: Judge
    rubric: Rubric
    cases: Sequence[AnchorCase]
    wheel: str
    limit: float
    interval_s: float
    clock: Clock
    random: Random
    telemetry: Telemetry
    _token: str = field(init=False)

    def __post_init__(self) -> None:
        self._token = self.random.token()

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        store: Store,
        judge: Judge,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
    ) -> "AnchorWatch":
        """Watch the judge as the settings say; without an interval, whenever it is looked at.

        Raises:
            ConfigError: the file of the anchors cannot be used.
        """
        return cls(
            store=store,
            judge=judge,
            rubric=settings.make_rubric(),
            cases=wiring.anchor_cases(settings)[: settings.anchors.num_cases],
            wheel=settings.wheel,
            limit=settings.anchors.limit,
            interval_s=settings.anchor_interval_s or 0.0,
            clock=clock,
            random=random,
            telemetry=telemetry,
        )

    @property
    def tick(self) -> Tick:
        """Look whether they are due, which the store knows: a restart forgets nothing."""
        pause_s = min(_LOOK_EVERY_S, self.interval_s)
        return Tick(name="anchors", interval_s=pause_s, run=self.look)

    async def look(self) -> Sequence[Record]:
        """Judge the anchors if they are due, unless another member does; show how they are.

        Raises:
            RetryLaterError: the judge or the store is away; the next look tries again.
        """
        revision, digest = self.judge.revision, self.rubric.digest
        newest = await offload(self.store.newest_anchor_run, revision, digest)
        if self._is_due(newest) and await self._is_ours():
            try:
                # Another member may have judged them between that look and this lease.
                newest = await offload(self.store.newest_anchor_run, revision, digest)
                if self._is_due(newest):
                    newest = AnchorEntry(run=await self.run())
            finally:
                await offload(self.store.release_lease, _LEASE, token=self._token)
        if newest is not None:
            drift = await offload(self.store.judge_drift, revision, digest)
            self._show(newest.run, is_drifted=drift is not None)
        return []

    async def run(self) -> AnchorRun:
        """Judge the anchors now, compare, and store what came of it.

        Raises:
            RetryLaterError: the judge or the store is away, or it takes none of the texts.
        """
        revision, digest = self.judge.revision, self.rubric.digest
        baseline = await offload(self.store.anchor_baseline, revision, digest)
        repeats = 1 if baseline else _BASELINE_REPEATS
        judged, num_left_out = await self._judge_all(repeats)
        calibration = await offload(self.store.newest_calibration, revision, digest)
        if calibration is None and repeats > 1:
            calibration = await self._calibrate(judged)
        run = AnchorRun(
            judge=self.judge.name,
            judge_revision=revision,
            rubric_digest=digest,
            scores={key: _mean(scores) for key, scores in judged.items()},
            num_repeats=repeats,
            num_left_out=num_left_out,
            ran_at=self.clock.now(),
        )
        if baseline is not None:
            run = run.compared(baseline, limit=self.limit, calibration=calibration)
        stored = await offload(self.store.add_anchor_run, run)
        if stored.verdict is AnchorVerdict.DRIFTED:
            drift = await offload(self.store.judge_drift, revision, digest)
            log.critical("%s", drift.sentence if drift else "the drift was accepted meanwhile")
        return stored

    def _is_due(self, newest: AnchorEntry | None) -> bool:
        if newest is None:
            return True
        return (self.clock.now() - newest.run.ran_at).total_seconds() >= self.interval_s

    async def _is_ours(self) -> bool:
        now = self.clock.now()
        return await offload(
            self.store.acquire_lease, _LEASE, token=self._token, at=now, until=now + _LEASE_FOR
        )

    async def _judge_all(self, repeats: int) -> tuple[dict[str, list[_Scores]], int]:
        """Judge each text so often; return the scores, and how many texts are left out.

        Left out are texts that the judge refuses, and those that it has no usable answer for. Of
        what it does not refuse, half must remain: of fewer, a mean says little of the judge.
        """
        room = asyncio.Semaphore(_AT_ONCE)
        texts = {
            f"{case.name}/{variant}#{digest_of(text).removeprefix('sha256:')[:8]}": (case, text)
            for case in self.cases
            for variant, text in case.texts(self.rubric.dimensions).items()
        }
        asked = [(key, case, text) for key, (case, text) in texts.items() for _ in range(repeats)]
        tasks = [asyncio.create_task(self._judge(*each, room)) for each in asked]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # after a failure, what is left would be asked for nothing
                task.cancel()
        failures = {
            key: it
            for (key, _, _), it in zip(asked, found, strict=True)
            if isinstance(it, DeltawheelError)
        }
        self._require_enough(len(texts), failures)
        judged: dict[str, list[_Scores]] = {}
        for (key, _, _), it in zip(asked, found, strict=True):
            if key not in failures and not isinstance(it, DeltawheelError):
                judged.setdefault(key, []).append(it)
        return judged, len(failures)

    def _require_enough(self, num_texts: int, failures: Mapping[str, DeltawheelError]) -> None:
        unusable = [it for it in failures.values() if isinstance(it, RetryLaterError)]
        num_takable = num_texts - len(failures) + len(unusable)
        if not num_takable:
            raise RetryLaterError(
                f"{self.judge.name} can judge none of the anchors: name cases that it can in "
                "anchors.file, or set anchors.interval_s to 0"
            )
        if 2 * len(unusable) > num_takable:
            raise RetryLaterError(
                f"{len(unusable)} of {num_takable} anchors have no usable answer: {unusable[-1]}"
            )

    async def _judge(
        self, key: str, case: AnchorCase, text: str, room: asyncio.Semaphore
    ) -> _Scores | InvalidRecordError | RetryLaterError:
        """Return the scores, or why there are none: one text says nothing of the others.

        Raises:
            RetryLaterError: the judge's server is away, which is the same for all texts.
        """
        asked = PromptSubmission(text=case.task, reference_answer=case.right_answer)
        prompt = asked.accept(wheel=self.wheel, accepted_at=self.clock.now())
        trace = hand_written(f"{key}-{self.random.token()}", prompt, answer=text)
        async with room:
            found = await self._assess(prompt, trace)
        if isinstance(found, DeltawheelError):
            log.warning("anchor %s is left out: %s", key, found)
            return found
        return {name: found.scores[name].mean for name in self.rubric.dimensions}

    async def _assess(
        self, prompt: Prompt, trace: Trace
    ) -> Assessment | InvalidRecordError | RetryLaterError:
        """Ask until there is a usable answer, some times at most."""
        for attempt in range(1, _TRIES + 1):
            try:
                return await self.judge.assess(prompt, trace, self.rubric)
            except InvalidRecordError as error:
                return error
            except RetryLaterError as error:
                failure = error
                if attempt == _TRIES and error.dependency:
                    raise
        return failure

    async def _calibrate(self, judged: Mapping[str, Sequence[_Scores]]) -> Calibration | None:
        """Store what a baseline's repeats tell of the judge, which nobody has calibrated yet."""
        measured = Calibration.measured(
            judged.values(),
            judge=self.judge.name,
            judge_revision=self.judge.revision,
            rubric_digest=self.rubric.digest,
            at=self.clock.now(),
        )
        return await offload(self.store.add_calibration, measured) if measured else None

    def _show(self, run: AnchorRun, *, is_drifted: bool) -> None:
        show = self.telemetry.set
        show("deltawheel_judge_drifted", float(is_drifted), judge=run.judge)
        for name in self.rubric.dimensions:
            shift = run.shifts.get(name, 0.0)
            show("deltawheel_anchor_shift", shift, judge=run.judge, dimension=name)


def _mean(scores: Sequence[_Scores]) -> dict[str, float]:
    return {name: fmean(each[name] for each in scores) for name in scores[0]}
