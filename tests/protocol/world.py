"""All that is outside of processes, as one value, and what a call makes of it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from airflow_stepops.jobs.protocol import JobState
from tests.protocol.actors import ActorKey, name_of_job, result_of
from tests.protocol.programs import EXISTS, MISSING, UNKNOWN, Call

RUNNING, STOPPING = JobState.RUNNING.value, JobState.STOPPING.value
SUCCEEDED, FAILED, STOPPED = JobState.SUCCEEDED.value, JobState.FAILED.value, JobState.STOPPED.value
ENDED = frozenset({SUCCEEDED, FAILED, STOPPED})

UNLIMITED = 1_000_000

#: Name of the actor that is a person with ``stepops cancel``.
PERSON = "person"


class Job(NamedTuple):
    """A job at the service.

    :param number: of the attempt that it was launched for.
    :param enders: who has asked for its end while it ran.
    """

    name: str
    number: int
    state: str
    enders: frozenset[str] = frozenset()


class Task(NamedTuple):
    """The task instance as Airflow has it.

    :param last_try: number of the last try that Airflow allows.
    :param state: ``running``, ``deferred``, ``success`` or ``failed``.
    :param runner: name of the actor that is its worker.
    :param pushed: the XCom.
    :param entry: the ledger's entry in its trigger.
    :param job: that it waits for, or did.
    :param cleared: the first try after the last clear.
    :param ended: whether a person has ended it.
    :param lost: how many attempts have failed or were given up, but for those that a person ended.
    """

    number: int
    last_try: int
    state: str
    runner: str
    pushed: str = ""
    entry: str = ""
    job: str = ""
    cleared: int = 1
    ended: bool = False
    lost: int = 0


class Actor(NamedTuple):
    """A process.

    :param node: where its program is.
    """

    name: str
    key: ActorKey
    node: int = 0
    signalled: bool = False


class Budget(NamedTuple):
    """What may still go wrong, or be done by a person.

    :param deaths: processes that die.
    :param losses: calls whose effect or answer is lost.
    :param zombies: workers that Airflow gives up though they live.
    :param kills: triggers that are told of a kill which nobody asked for, as those of a triggerer that had stalled.
    :param deferrals: deferrals that time out or whose trigger fails.
    :param failures: jobs that fail.
    :param results: jobs that leave a result and end well.
    :param clears: of the task, by a person.
    :param marks: as failed, by a person.
    :param cancels: with ``stepops cancel``.
    :param switches: from a process to another one, while the first one could go on.
    """

    deaths: int = 0
    losses: int = 0
    zombies: int = 0
    kills: int = 0
    deferrals: int = 0
    failures: int = 0
    results: int = 0
    clears: int = 0
    marks: int = 0
    cancels: int = 0
    switches: int = UNLIMITED

    def less(self, name: str) -> Budget:
        """Return what is left after one more."""
        left = getattr(self, name)
        return self if left == UNLIMITED else self._replace(**{name: left - 1})


class Worth(NamedTuple):
    """A job that an attempt could go on with when it began.

    :param is_done: whether it had ended by then, and left its result.
    """

    number: int
    job: str
    is_done: bool


class World(NamedTuple):
    """Everything.

    :param store: key → content, sorted.
    :param killed: triggers that will be told that a person has ended their task: number of the attempt, entry.
    :param triggers: all that there ever were, whose triggerers may have stalled.
    :param worth: what attempts that launch could go on with when they began.
    :param asked: number of the last attempt whose job somebody has asked to end.
    :param groundless: keys of the claims of triggers that were told of a kill which nobody asked for.
    :param turn: name of the process that made the last call.
    """

    store: tuple[tuple[str, bytes], ...]
    jobs: tuple[Job, ...]
    task: Task
    actors: tuple[Actor, ...]
    killed: tuple[tuple[int, str], ...]
    triggers: tuple[tuple[int, str], ...]
    worth: tuple[Worth, ...]
    asked: int
    groundless: frozenset[str]
    turn: str
    budget: Budget

    def job(self, name: str) -> Job | None:
        """Return a job."""
        return next((job for job in self.jobs if job.name == name), None)

    def get(self, key: str) -> bytes | None:
        """Return an object."""
        return next((data for found, data in self.store if found == key), None)

    def has_result(self, job: Job) -> bool:
        """Whether a job has left its result."""
        return self.get(result_of(job.number)[0]) is not None

    def with_object(self, key: str, data: bytes | None) -> World:
        """Return the world with an object, or without it."""
        objects = dict(self.store)
        objects.pop(key, None)
        if data is not None:
            objects[key] = data
        return self._replace(store=tuple(sorted(objects.items())))

    def with_job(self, job: Job) -> World:
        """Return the world with a job in its new state."""
        return self._replace(jobs=tuple(sorted([*(other for other in self.jobs if other.name != job.name), job])))

    def with_task(self, **fields: object) -> World:
        """Return the world with another state of the task."""
        return self._replace(task=self.task._replace(**fields))

    def with_actor(self, actor: Actor) -> World:
        """Return the world with a process in its new state."""
        others = [other for other in self.actors if other.name != actor.name]
        return self._replace(actors=tuple(sorted([*others, actor], key=lambda actor: actor.name)))

    def without_actor(self, name: str) -> World:
        """Return the world without a process."""
        return self._replace(actors=tuple(actor for actor in self.actors if actor.name != name))

    def lives(self, name: str) -> bool:
        """Whether there is a process."""
        return any(actor.name == name for actor in self.actors)


def store(world: World, call: Call) -> tuple[World, Hashable]:
    """Return what the artifact store makes of a call: the world after it, and the answer."""
    key = str(call.args[0])
    there = world.get(key)
    if call.name == "get":
        return world, MISSING if there is None else there
    if call.name == "list":
        return world, tuple(found for found, _ in world.store if found.startswith(f"{key}/"))
    if call.name == "put_if_absent" and there is not None:
        return world, EXISTS
    data = None if call.name == "delete" else call.args[1]
    assert data is None or isinstance(data, bytes)
    return world.with_object(key, data), "done"


def service(world: World, call: Call, who: str) -> tuple[World, Hashable]:
    """Return what the service makes of a call.

    :param who: name of the actor.
    """
    if call.name == "wait":
        return world, "done"
    job = world.job(str(call.args[0]))
    if call.name == "submit":
        number = call.args[1]
        assert isinstance(number, int)
        assert call.args[0] == name_of_job(number)
        return (world, job.state) if job else (world.with_job(Job(name_of_job(number), number, RUNNING)), RUNNING)
    if call.name == "cancel":
        if job is not None and job.state == RUNNING:
            world = world.with_job(job._replace(state=STOPPING, enders=job.enders | {who}))
        return world, "done"
    if job is None:
        return world, "" if call.name == "find" else UNKNOWN
    return world, job.state


def can_go_on(world: World, call: Call) -> bool:
    """Whether a call is answered now: who waits for a job's end waits as long as one is being stopped."""
    return call.name != "wait" or all(job.state != STOPPING for job in world.jobs)


def is_settled(world: World, call: Call, who: ActorKey) -> bool:
    """Whether no other process can change the answer to a call, which so need not be put into any order.

    That is the first look of an attempt for a ledger of its own, and each one at a claim that there is.
    """
    if call.target != "store" or call.name != "get":
        return False
    key = str(call.args[0])
    own = who[0] == "attempt" and key.endswith(f"/attempt-{who[1]}/job.json")
    return world.get(key) is None if own else key.endswith("/claim.json") and world.get(key) is not None
