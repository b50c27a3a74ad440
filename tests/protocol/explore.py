"""Explores every interleaving of a scenario.

What happens in a world does not depend on how it came about. So an interleaving is followed to its end, or to a world
that another one has led to already, and what comes after that is counted and not done again.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from tests.protocol import world as outside
from tests.protocol.actors import program
from tests.protocol.moves import Scenario, text
from tests.protocol.programs import Call
from tests.protocol.world import PERSON, RUNNING, STOPPED, STOPPING, SUCCEEDED, World


@dataclass(frozen=True)
class Violation:
    """A promise that was broken, and what led to it."""

    promise: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((self.promise, *(f"  {number:2} {label}" for number, label in enumerate(self.trace, 1))))


@dataclass
class Explored:
    """What came of a scenario.

    :param interleavings: how many were followed, all of them different.
    :param covered: how many complete ones these are, with what comes after a world that two of them have led to.
    :param worlds: how many different ones they lead through.
    :param depth: moves of the longest one.
    :param swept: in how many of the ends the orphan sweep had to stop a job.
    :param runs: how often the code was run for that, each time with other answers.
    """

    interleavings: int = 0
    covered: int = 0
    worlds: int = 0
    depth: int = 0
    swept: int = 0
    runs: int = 0
    violations: list[Violation] = field(default_factory=list)


def explore(scenario: Scenario) -> Explored:
    """Explore all interleavings of a scenario, to their ends."""
    return _Exploration(scenario).explore()


class _Exploration:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._seen: dict[World, int] = {}
        self._trace: list[tuple[Hashable, ...]] = []
        self._found = Explored()

    def explore(self) -> Explored:
        found = self._found
        found.covered = self._follow(self._scenario.start())
        found.worlds = len(self._seen)
        found.runs = sum(map(len, self._scenario.programs.values()))
        found.violations.sort(key=lambda violation: len(violation.trace))
        return found

    def _follow(self, world: World) -> int:
        """Return the number of complete interleavings that begin in a world."""
        if world in self._seen:
            self._found.interleavings += 1
            return self._seen[world]
        count, goes_on = 0, False
        for move in self._scenario.moves(world):
            goes_on = goes_on or move.must
            self._trace.append(move.what)
            wrong = move.wrong or stopped_while_waited_for(move.world)
            if wrong:  # what follows would only repeat it
                self._add(wrong)
                self._found.interleavings += 1
            count += 1 if wrong else self._follow(move.world)
            self._trace.pop()
        if not count:
            self._found.interleavings += 1
        if not goes_on:
            self._check_end(world)
        self._found.depth = max(self._found.depth, len(self._trace))
        self._seen[world] = count or 1
        return self._seen[world]

    def _check_end(self, world: World) -> None:
        """Check that no job runs that nobody waits for, or that the orphan sweep finds it when the task has ended."""
        task = world.task
        active = _unwanted(world)
        if not active:
            return
        # A worker that Airflow has given up may launch a job late, and die before it stops it.
        if task.state == "deferred" and not self._scenario.spent(world, "deaths", "losses"):
            self._add(f"attempt {task.number} waits for a job, and another one runs: {', '.join(active)}")
            return
        self._found.swept += 1
        waited_for = world.job(task.job) if task.state == "deferred" else None
        left = _unwanted(swept(world.with_job(waited_for._replace(state=SUCCEEDED)) if waited_for else world))
        if left:
            self._add(f"the task is over, and the orphan sweep leaves a job: {', '.join(left)}")

    def _add(self, promise: str) -> None:
        self._found.violations.append(Violation(promise, tuple(map(text, self._trace))))


def stopped_while_waited_for(world: World) -> str:
    """Return what is wrong when a job was stopped that a task waits for.

    Not when a person has asked for just that, nor when the job had left its result by then.
    """
    if world.task.state != "deferred":
        return ""
    job = world.job(world.task.job)
    assert job is not None
    enders = job.enders - {PERSON}
    if not enders or world.has_result(job):
        return ""
    return f"attempt {world.task.number} waits for a job that {', '.join(enders)} has stopped"


def swept(world: World) -> World:
    """Return the world after the orphan sweep."""
    sweep, node = program(("sweep",)), 0
    while isinstance(call := sweep.then(node), Call):
        if call.target == "store":
            world, answer = outside.store(world, call)
        else:
            world, answer = outside.service(world, call, "sweep")
        for job in world.jobs:
            world = world.with_job(job._replace(state=STOPPED)) if job.state == STOPPING else world
        node = sweep.answered(node, answer)
    return world


def _unwanted(world: World) -> list[str]:
    """Return the names of the jobs that run and that the task does not wait for."""
    waited_for = world.task.job if world.task.state == "deferred" else ""
    return [job.name for job in world.jobs if job.state == RUNNING and job.name != waited_for]
