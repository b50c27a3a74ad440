"""What may happen next: each call of each process, what goes wrong with it, and what Airflow and people do."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from airflow_stepops.jobs.ledger import CANCEL
from tests.protocol import world as outside
from tests.protocol.actors import ActorKey, claim_of, name_of_job, program, result_of
from tests.protocol.programs import AWAY, EXISTS, RESET, SIGNAL, UNREACHABLE, Call, Ended, Failure, Program
from tests.protocol.world import (
    ENDED,
    FAILED,
    PERSON,
    RUNNING,
    STOPPED,
    STOPPING,
    SUCCEEDED,
    UNLIMITED,
    Actor,
    Budget,
    Job,
    Task,
    World,
    Worth,
)

#: A triggerer that has lost its triggers to another one, and does not know it.
_STALLED = "stalled"
#: What Airflow says of a deferral that ends without an event.
_TIMED_OUT, _TRIGGER_FAILED = "Trigger timeout", "Trigger failure"


class Move(NamedTuple):
    """One thing that may happen.

    :param what: it is, see :func:`text`.
    :param must: whether it happens sooner or later; all else may never happen.
    :param wrong: the promise that it breaks, ``""`` for none.
    """

    what: tuple[Hashable, ...]
    world: World
    must: bool = True
    wrong: str = ""


@dataclass(frozen=True)
class Scenario:
    """A task, and what may happen to it.

    :param budget: how often at most.
    :param tries: how many attempts Airflow makes.
    :param works: what the attempts are to do: an attempt goes on with a job of the same work alone. The last one is of
        all later attempts too.
    :param signals: whether Airflow sends SIGTERM to a worker whose task is not its own any more.
    """

    name: str
    budget: Budget
    tries: int = 2
    works: tuple[int, ...] = (1,)
    signals: bool = False
    programs: dict[ActorKey, Program] = field(default_factory=dict, compare=False, repr=False)

    def start(self) -> World:
        """Return the world in which the first attempt begins."""
        nobody = Task(0, self.tries, "running", "")
        return self._begin(World((), (), nobody, (), (), (), (), 0, frozenset(), "", self.budget))

    def moves(self, world: World) -> Iterator[Move]:
        """Yield what may happen next."""
        for actor, after in self._turns(world):
            yield from self._calls(after, actor)
        yield from self._airflow(world)
        yield from self._triggers(world)
        yield from self._service(world)
        yield from self._person(world)

    def program(self, key: ActorKey) -> Program:
        """Return the program of an actor, with all that was run of it so far."""
        if key not in self.programs:
            self.programs[key] = program(key)
        return self.programs[key]

    def _turns(self, world: World) -> Iterator[tuple[Actor, World]]:
        """Yield the processes that may make their next call, each with the world in which it has its turn."""
        bounded = world.budget.switches != UNLIMITED
        last = next((actor for actor in world.actors if actor.name == world.turn), None)
        last = last if last is not None and outside.can_go_on(world, self._next_call(last)) else None
        for actor in world.actors:
            switches = bounded and last not in (None, actor)
            if not outside.can_go_on(world, self._next_call(actor)) or (switches and not world.budget.switches):
                continue
            budget = world.budget.less("switches") if switches else world.budget
            yield actor, world._replace(turn=actor.name if bounded else "", budget=budget)

    def _next_call(self, actor: Actor) -> Call:
        call = self.program(actor.key).then(actor.node)
        assert isinstance(call, Call)
        return call

    # -- processes ----------------------------------------------------------------------------------------------------

    def _calls(self, world: World, actor: Actor) -> Iterator[Move]:
        call = self._next_call(actor)
        after, answer, wrong = self._perform(world, call, actor)
        yield self._answered(after, actor, call, answer, wrong=wrong)
        if world.budget.losses:
            spent = world._replace(budget=world.budget.less("losses"))
            for lost, answer in self._losses(spent, call, actor):
                yield self._answered(lost, actor, call, answer, must=False)
        if world.budget.deaths:
            spent = world._replace(budget=world.budget.less("deaths"))
            yield Move((actor.name, "dies before", call), self._after(spent, actor), must=False)
        if self.signals and actor.key[0] == "attempt" and not actor.signalled and world.task.runner != actor.name:
            told = world._replace(asked=max(world.asked, actor.key[1]))
            yield self._answered(told, actor._replace(signalled=True), call, SIGNAL, must=False)

    def _perform(self, world: World, call: Call, actor: Actor) -> tuple[World, Hashable, str]:
        if call.target == "store":
            after, answer = outside.store(world, call)
            if call.name == "put_if_absent" and after != world and actor.name.startswith(_STALLED):
                after = after._replace(groundless=world.groundless | {str(call.args[0])})
            return after, answer, ""
        if call.target == "service":
            wrong = self._double(world, actor, call) if call.name == "submit" else ""
            return *outside.service(world, call, actor.name), wrong
        return self._told(world, call, actor)

    def _losses(self, world: World, call: Call, actor: Actor) -> Iterator[tuple[World, Hashable]]:
        """Yield how a call can fail: without its effect, or with it and without its answer."""
        if call.target == "airflow" or call.name == "wait":
            return
        after, _, _ = self._perform(world, call, actor)
        has_effect = after != world
        if call.target == "store":
            yield world, AWAY
            if has_effect:
                yield after, AWAY
            if has_effect and call.name == "put_if_absent":  # it was sent again, and found what it had written
                yield after, EXISTS
        else:
            yield world, UNREACHABLE
            if has_effect:
                yield after, UNREACHABLE
                yield after, RESET

    def _answered(
        self, world: World, actor: Actor, call: Call, answer: Hashable, *, must: bool = True, wrong: str = ""
    ) -> Move:
        node = self._settled(world, actor.key, self.program(actor.key).answered(actor.node, answer))
        then = self.program(actor.key).then(node)
        what = (actor.name, call, "→", answer)
        if isinstance(then, Call):
            return Move(what, world.with_actor(actor._replace(node=node)), must, wrong)
        if then.crash:
            wrong = f"{actor.name} crashes: {then.crash}"
        return Move((*what, "and ends:", then), self._after(world, actor), must, wrong)

    def _settled(self, world: World, key: ActorKey, node: int) -> int:
        """Return the node of a program after those of its next calls that need not be put into any order."""
        program = self.program(key)
        while isinstance(call := program.then(node), Call) and outside.is_settled(world, call, key):
            node = program.answered(node, outside.store(world, call)[1])
        return node

    def _after(self, world: World, actor: Actor) -> World:
        """Return the world after a process, without what only mattered to it."""
        worth = tuple(worth for worth in world.worth if actor.key[0] != "attempt" or worth.number != actor.key[1])
        return world.without_actor(actor.name)._replace(worth=worth)

    def _double(self, world: World, actor: Actor, call: Call) -> str:
        """Return what is wrong with a new job: there was one to go on with, and nobody has asked for its end."""
        number, task = call.args[1], world.task
        assert isinstance(number, int)
        if world.job(name_of_job(number)) or number < task.cleared or task.ended or self.spent(world, "cancels"):
            return ""
        for worth in world.worth:
            job = world.job(worth.job)
            assert job is not None
            is_lost = job.state == FAILED and not world.has_result(job)
            if worth.number == number and not is_lost and (worth.is_done or not self._is_cancelled(world, job)):
                return f"attempt {number} launches a job, though it could go on with that of attempt {job.number}"
        return ""

    def spent(self, world: World, *names: str) -> int:
        """Return how much of the budget is gone in a world."""
        return sum(getattr(self.budget, name) - getattr(world.budget, name) for name in names)

    # -- Airflow ------------------------------------------------------------------------------------------------------

    def _told(self, world: World, call: Call, actor: Actor) -> tuple[World, Hashable, str]:
        """Answer a call of Airflow's API, which ignores how the task of a worker ended that it had given up."""
        task = world.task
        if call.name == "state":
            return world, task.state, ""
        if call.name == "pull":
            return world, task.pushed, ""
        if call.name == "push":
            is_pulled = self.budget.kills or self.budget.deferrals or self.budget.clears or self.budget.marks
            return (world.with_task(pushed=call.args[1]) if is_pulled else world), "done", ""
        if task.state != "running" or task.runner != actor.name:
            return world, "refused", ""
        if call.name == "succeed":
            return world.with_task(state="success", runner=""), "done", ""
        if call.name == "defer":
            number, entry, job = call.args
            deferred = world.with_task(state="deferred", runner="", entry=entry, job=job)
            triggers = (*world.triggers, (number, entry)) if self.budget.kills else ()
            return deferred._replace(triggers=triggers), "done", ""  # type: ignore[arg-type]
        _, final, text = call.args
        if not final:
            after, wrong = self._lost(world, str(text))
            return after, "done", wrong
        wrong = (
            "" if self.spent(world, "cancels") else f"the task fails for good, and nobody has asked for that: {text}"
        )
        return world.with_task(state="failed", runner=""), "done", wrong

    def _lost(self, world: World, why: str) -> tuple[World, str]:
        """Return the world after an attempt that failed or was given up, and what is wrong with that."""
        world = world.with_task(lost=world.task.lost + 1)
        names = ("deaths", "losses", "zombies", "deferrals", "failures")
        happened = self.spent(world, *names)
        wrong = ""
        if world.task.lost > happened and not self.spent(world, "cancels"):
            wrong = f"attempt {world.task.number} fails, though nothing has happened to it: {why}"
        if world.task.number < world.task.last_try:
            return self._begin(world), wrong
        return world.with_task(state="failed", runner=""), wrong

    def _begin(self, world: World) -> World:
        """Let the next attempt begin."""
        task = world.task
        number = task.number + 1
        worth = [
            Worth(number, job.name, job.state in ENDED) for job in world.jobs if self._is_worth(world, job, number)
        ]
        name = f"worker {number}"
        world = world.with_task(number=number, state="running", runner=name, pushed="", entry="", job="")
        key = ("attempt", number, task.last_try, self._work(number))
        world = world.with_actor(Actor(name, key, self._settled(world, key, 0)))
        return world._replace(worth=(*world.worth, *worth))

    def _is_worth(self, world: World, job: Job, number: int) -> bool:
        """Whether an attempt that begins should go on with a job: nobody has had reason to ask for its end."""
        return (
            world.task.cleared <= job.number
            and self._work(job.number) == self._work(number)
            and (world.has_result(job) if job.state in ENDED else not job.enders and not self._is_cancelled(world, job))
        )

    def _is_cancelled(self, world: World, job: Job) -> bool:
        """Whether somebody with a reason has asked for the end of a job, or an attempt that did not know of it yet."""
        key = claim_of(job.number)
        return job.number <= world.asked or (world.get(key) == CANCEL.encode() and key not in world.groundless)

    def _work(self, number: int) -> int:
        return self.works[min(number, len(self.works)) - 1]

    def _airflow(self, world: World) -> Iterator[Move]:
        task, budget = world.task, world.budget
        if task.state == "running" and not world.lives(task.runner):
            after, wrong = self._lost(world, "its worker is dead")
            yield Move((f"Airflow sees that {task.runner} is dead",), after, wrong=wrong)
        if task.state == "running" and budget.zombies and world.lives(task.runner):
            after, wrong = self._lost(world._replace(budget=budget.less("zombies")), "its worker seems dead")
            yield Move((f"Airflow thinks that {task.runner} is dead",), after, must=False, wrong=wrong)
        if task.state != "deferred":
            return
        job = world.job(task.job)
        assert job is not None
        if job.state in ENDED:
            yield Move((f"trigger {task.number} tells that its job has {job.state}",), self._resumed(world, job.state))
        if budget.deferrals:
            for what in (_TIMED_OUT, _TRIGGER_FAILED):
                spent = world._replace(budget=budget.less("deferrals"), asked=max(world.asked, task.number))
                yield Move(
                    (f"Airflow ends the deferral {task.number}: {what}",), self._resumed(spent, what), must=False
                )

    def _resumed(self, world: World, ended: str) -> World:
        task = world.task
        name = f"worker {task.number} resumed"
        world = world.with_task(state="running", runner=name)
        return world.with_actor(Actor(name, ("resume", task.number, task.entry, ended)))

    def _triggers(self, world: World) -> Iterator[Move]:
        for number, entry in world.killed:
            name = f"trigger {number}"
            told = world._replace(killed=tuple(trigger for trigger in world.killed if trigger != (number, entry)))
            yield Move((f"{name} is told that it is killed",), told.with_actor(Actor(name, ("kill", number, entry))))
            if world.budget.deaths:
                died = told._replace(budget=world.budget.less("deaths"))
                yield Move((f"the triggerer of {name} dies",), died, must=False)
        if world.budget.kills:
            for number, entry in world.triggers:
                name = f"{_STALLED} trigger {number}"
                told = world._replace(budget=world.budget.less("kills"))
                actor = Actor(name, ("kill", number, entry))
                yield Move((f"{name} is told that it is killed",), told.with_actor(actor), must=False)

    # -- the service --------------------------------------------------------------------------------------------------

    def _service(self, world: World) -> Iterator[Move]:
        for job in world.jobs:
            yield from self._progress(world, job)

    def _progress(self, world: World, job: Job) -> Iterator[Move]:
        label = f"the job of attempt {job.number}"
        if job.state in ENDED:
            return
        if job.state == STOPPING:
            yield Move((f"{label} is stopped",), world.with_job(job._replace(state=STOPPED)))
        if world.has_result(job):
            if job.state == RUNNING:
                yield Move((f"{label} ends well",), world.with_job(job._replace(state=SUCCEEDED)))
            return
        if world.budget.results:
            left = world.with_object(*result_of(job.number))._replace(budget=world.budget.less("results"))
            yield Move((f"{label} leaves its result",), left, must=False)
        if job.state == RUNNING and world.budget.failures:
            failed = world.with_job(job._replace(state=FAILED))._replace(budget=world.budget.less("failures"))
            yield Move((f"{label} fails",), failed, must=False)

    # -- people -------------------------------------------------------------------------------------------------------

    def _person(self, world: World) -> Iterator[Move]:
        task, budget = world.task, world.budget
        killed = (*world.killed, (task.number, task.entry)) if task.state == "deferred" else world.killed
        if budget.clears:
            cleared = world.with_task(last_try=task.number + self.tries, cleared=task.number + 1, ended=False)
            spent = cleared._replace(budget=budget.less("clears"), killed=killed)
            yield Move(("a person clears the task",), self._begin(spent), must=False)
        if budget.marks and task.state in ("running", "deferred"):
            marked = world.with_task(state="failed", runner="", ended=True)
            spent = marked._replace(budget=budget.less("marks"), killed=killed)
            yield Move(("a person marks the task as failed",), spent, must=False)
        if budget.cancels:
            spent = world._replace(budget=budget.less("cancels"))
            yield Move(("a person cancels the jobs",), spent.with_actor(Actor(PERSON, ("cancel",))), must=False)


def text(value: Hashable) -> str:
    """Return a move, or a part of it, in short for people."""
    if isinstance(value, Call):
        return f"{value.target}.{value.name}({', '.join(text(arg) for arg in value.args)})"
    if isinstance(value, Failure):
        return value.text
    if isinstance(value, Ended):
        return value.crash or value.said or "done"
    if isinstance(value, tuple):
        return " ".join(text(part) for part in value)
    if isinstance(value, bytes):
        return value.decode() if len(value) < 40 else "{…}"
    words = str(value)
    return "{…}" if words.startswith("{") else words.rpartition("/instance/")[2]
