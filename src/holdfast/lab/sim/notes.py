"""What a user has written down of its tasks: it outlives every process that submits and waits.

Owns what the death of a client costs. What was accepted is noted, and so are the wishes for it: a
next process watches it, and wishes again what was not answered. What was submitted and not answered
is in doubt: some of it is submitted again under its id, the rest is forgotten, kept or not.
"""

from __future__ import annotations

import random
from collections.abc import Collection

from holdfast.lab.sim.plan import WishPlan
from holdfast.lab.sim.witness import Blobs, behaviour_of
from holdfast.model.ids import TaskId
from holdfast.model.task import Spec

REMEMBERED = 0.5
"""How much of what was not answered is submitted again."""
ENDLESS = ("forever", "stubborn")
"""What only a cancel ends. Nobody forgets these: nobody else would cancel them."""


class Notes:
    """The notes of one user."""

    __slots__ = (
        "_blobs",
        "early",
        "holders",
        "ids",
        "made",
        "said",
        "unanswered",
        "unsettled",
        "wanted",
    )

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.ids: dict[int, TaskId] = {}
        """Number of a submission → the id that it was given."""
        self.unanswered: dict[TaskId, tuple[Spec, bool]] = {}
        """What was submitted and not answered, and whether it was said before."""
        self.holders: dict[TaskId, TaskId] = {}
        """Accepted ids, and the tasks that hold them."""
        self.unsettled: dict[TaskId, None] = {}
        self.made: dict[int, None] = {}
        """Numbers of wishes that were made, said or not."""
        self.early: list[tuple[int, WishPlan]] = []
        """Wishes whose tasks are not accepted yet."""
        self.wanted: dict[int, WishPlan] = {}
        """Wishes that were said and not answered, by their number."""
        self.said: dict[TaskId, tuple[int, WishPlan]] = {}
        """Task → the newest wish that was said for it."""

    @property
    def at_rest(self) -> bool:
        """Whether all that there was to say was said, answered and settled."""
        return not (self.unanswered or self.unsettled or self.wanted or self.early)

    @property
    def waits_for(self) -> list[TaskId]:
        """Return the tasks of which nothing final was told."""
        return [*self.unanswered, *self.unsettled]

    def holder_of(self, wish: WishPlan) -> TaskId:
        """Return the task that a wish is for; it was accepted."""
        return self.holders[self.ids[wish.task]]

    def accepted(self, given: TaskId, holder: TaskId) -> None:
        """Note that a submission is kept, and by which task."""
        if self.unanswered.pop(given, None) is not None and given not in self.holders:
            self.unsettled[holder] = None
        self.holders[given] = holder

    def refused(self, task: TaskId) -> None:
        """Note that a submission is surely not kept."""
        self.unanswered.pop(task, None)
        self.unsettled.pop(task, None)
        self._drop_wishes({task})

    def forget(self, rng: random.Random) -> list[TaskId]:
        """Note that the process is gone. Return the ids that nobody will ask for any more."""
        lost: list[TaskId] = []
        for task, (spec, _) in list(self.unanswered.items()):
            # What its former life said may be on its way.
            self.unanswered[task] = (spec, True)
            do = behaviour_of(spec.payload, self._blobs).do
            if do not in ENDLESS and rng.random() >= REMEMBERED:
                del self.unanswered[task]
                lost += [task] if task not in self.holders else []
        self._drop_wishes(set(lost))
        return lost

    def _drop_wishes(self, tasks: Collection[TaskId]) -> None:
        self.early = [each for each in self.early if self.ids.get(each[1].task) not in tasks]
