"""Real, synchronous code as a function of the answers to its calls, so that its calls can be put into any order.

What a process does next depends on nothing but the answers that it has got so far. So a program is run with a list of
answers; where they end, the run ends too, and the call that it could not answer is the program's next one. The runs are
kept as a tree: each list of answers is run once, however many interleavings have it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from airflow_stepops.errors import (
    ArtifactError,
    ArtifactExistsError,
    ArtifactNotFoundError,
    JobNotFoundError,
    StepopsError,
    TransientServiceError,
)

#: Seconds that a service which does not answer at all is asked again; more than the code has patience for.
_MINUTES = 1000.0


class Call(NamedTuple):
    """A call that a program makes.

    :param target: ``store``, ``service`` or ``airflow``.
    """

    target: str
    name: str
    args: tuple[Hashable, ...]


class Ended(NamedTuple):
    """The end of a program.

    :param crash: the exception that it ended with, ``""`` for none: programs report errors of their own.
    """

    said: str
    crash: str


class Failure(NamedTuple):
    """An answer that is raised."""

    error: type[StepopsError]
    text: str
    seconds: float = 0.0


MISSING = Failure(ArtifactNotFoundError, "there is nothing")
EXISTS = Failure(ArtifactExistsError, "there is something already")
AWAY = Failure(ArtifactError, "the store gave no answer for minutes")
UNKNOWN = Failure(JobNotFoundError, "no such job")
#: A call that fails and works when it is made again.
RESET = Failure(TransientServiceError, "the connection was reset")
#: A call that fails as often as it is made again.
UNREACHABLE = Failure(TransientServiceError, "the service gave no answer for minutes", _MINUTES)

#: In the place of an answer: the process is sent SIGTERM while it waits for the answer.
SIGNAL = "SIGTERM"


class UnansweredError(BaseException):
    """Ends a run at the first call that has no answer."""


class Line:
    """The end of all calls of one run.

    :param answers: to its first calls.
    :param calls: that were answered so in an earlier run.
    """

    def __init__(self, answers: list[Hashable], calls: list[Call]) -> None:
        self._answers = answers
        self._calls = calls
        self._answered = 0
        self.now = 0.0
        self.pending: Call | None = None
        self.on_signal: Callable[[], None] = lambda: None

    def ask(self, target: str, name: str, *args: Hashable) -> Any:
        """Return the answer to a call, or raise it."""
        call = Call(target, name, args)
        while self._answered < len(self._answers):
            answer = self._answers[self._answered]
            assert self._calls[self._answered] == call, f"not deterministic: {self._calls[self._answered]}, now {call}"
            self._answered += 1
            if isinstance(answer, Failure):
                self.now += answer.seconds
                raise answer.error(answer.text)
            if answer is not SIGNAL:
                return answer
            self.on_signal()
        self.pending = self.pending or call
        raise UnansweredError


@dataclass
class _Node:
    """A program that has got some answers.

    :param then: its next call, or its end.
    """

    before: int
    answer: Hashable
    then: Call | Ended
    after: dict[Hashable, int] = field(default_factory=dict)


class Program:
    """One program with all answers that were tried.

    :param run: the code; returns what there is to say of its end.
    """

    def __init__(self, run: Callable[[Line], str]) -> None:
        self._run = run
        self._nodes = [_Node(-1, None, self._then([], []))]

    def __len__(self) -> int:
        """How often the code was run."""
        return len(self._nodes)

    def then(self, node: int) -> Call | Ended:
        """Return the next call, or the end, after the answers of a node; node 0 has none."""
        return self._nodes[node].then

    def answered(self, node: int, answer: Hashable) -> int:
        """Return the node with one more answer."""
        after = self._nodes[node].after
        if answer not in after:
            answers, calls = [answer], []
            place = node
            while place >= 0:
                found = self._nodes[place]
                answers.append(found.answer)
                assert isinstance(found.then, Call)
                calls.append(found.then)
                place = found.before
            then = self._then(answers[-2::-1], calls[::-1])
            self._nodes.append(_Node(node, answer, then))
            after[answer] = len(self._nodes) - 1
        return after[answer]

    def _then(self, answers: list[Hashable], calls: list[Call]) -> Call | Ended:
        line = Line(answers, calls)
        try:
            said = self._run(line)
        except UnansweredError:
            assert line.pending is not None
            return line.pending
        except Exception as error:  # noqa: BLE001 - any error that reaches this place is a finding
            return Ended("", f"{type(error).__name__}: {error}")
        return Ended(said, "")
