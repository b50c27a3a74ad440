"""What is explored.

Where ``switches`` is not given, every order of all calls is; else those in which a process is left in the middle for
another one at most so many times.
"""

from __future__ import annotations

from tests.protocol.moves import Scenario
from tests.protocol.world import Budget

#: Explored in seconds.
QUICK = (
    Scenario("a worker that was thought to be dead", Budget(zombies=1, results=1, switches=2)),
    Scenario("the same, and it is told so", Budget(zombies=1, results=1, switches=1), signals=True),
    Scenario("a job that fails, and a worker that was thought to be dead", Budget(zombies=1, failures=1, switches=2)),
    Scenario("two deaths in three attempts", Budget(deaths=2, results=1), tries=3),
    Scenario("a death and a worker that was thought to be dead", Budget(deaths=1, zombies=1, switches=1), tries=3),
    Scenario("lost answers", Budget(losses=2, results=1), tries=3),
    Scenario("other work than before", Budget(zombies=1, results=1, switches=2), works=(1, 2)),
    Scenario("a kill that nobody asked for", Budget(zombies=1, kills=1, results=1, switches=2)),
    Scenario("the end of a deferral", Budget(deferrals=1, zombies=1, switches=2)),
    Scenario("a clear and the kill of its trigger", Budget(clears=1, results=1, switches=2)),
    Scenario("a person marks the task as failed", Budget(marks=1, results=1), signals=True),
    Scenario("stepops cancel", Budget(cancels=1, zombies=1, switches=1)),
)

#: Explored in minutes.
THOROUGH = (
    Scenario("a worker that was thought to be dead, each order", Budget(zombies=1, results=1)),
    Scenario("the same, and it is told so, each order", Budget(zombies=1, results=1), signals=True),
    Scenario("other work than before, each order", Budget(zombies=1, results=1), works=(1, 2)),
    Scenario("a kill that nobody asked for, each order", Budget(zombies=1, kills=1, results=1)),
    Scenario("a clear and the kill of its trigger, each order", Budget(clears=1, results=1)),
    Scenario("two workers that were thought to be dead", Budget(zombies=2, switches=2), tries=3),
    Scenario("a death and a worker that was thought to be dead, each order", Budget(deaths=1, zombies=1), tries=3),
    Scenario("a lost answer and a worker that was thought to be dead", Budget(losses=1, zombies=1), tries=3),
    Scenario("other work than before, and a death", Budget(zombies=1, deaths=1, switches=2), tries=3, works=(1, 2, 1)),
    Scenario(
        "other work than before, and a lost answer", Budget(zombies=1, losses=1, switches=2), tries=3, works=(1, 2)
    ),
    Scenario("the end of a deferral, each order", Budget(deferrals=1, zombies=1), tries=3),
    Scenario(
        "the end of a deferral, a kill that nobody asked for, and a lost answer",
        Budget(deferrals=1, zombies=1, kills=1, losses=1, switches=1),
    ),
    Scenario("a clear, and a worker that is told of it", Budget(clears=1), signals=True),
    Scenario("a clear and a worker that was thought to be dead", Budget(clears=1, zombies=1, switches=1)),
    Scenario("a clear and a death", Budget(clears=1, deaths=1, switches=2)),
    Scenario("a clear and a lost answer", Budget(clears=1, losses=1, switches=2)),
    Scenario(
        "stepops cancel and a worker that was thought to be dead", Budget(cancels=1, zombies=1, switches=2, results=1)
    ),
    Scenario("stepops cancel and a death", Budget(cancels=1, deaths=1, results=1), tries=3),
    Scenario("stepops cancel and a lost answer", Budget(cancels=1, losses=1, results=1), tries=3),
)
