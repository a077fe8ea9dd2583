"""Calls of several threads made together: who comes while others are under way joins the next group.

Two steps make a call. Of the first, which costs the same for one call and for many, one group is made at a
time, by the thread that came first; the second, which waits, runs beside the next group's first. Nobody waits
for company: a call that comes alone is made at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Event, Lock, get_ident
from typing import Any, Generic, TypeVar, cast
from weakref import WeakSet

from tradepool.errors import Unavailable

__all__ = ["Grouping"]

Call = TypeVar("Call")
Begun = TypeVar("Begun")
Result = TypeVar("Result")


class Grouping(Generic[Call, Begun, Result]):
    """Makes calls in groups. Threads share an instance; in a fork nobody leads it.

    `begin` takes a group's calls, in the order in which they came, and `finish`, given what that returned,
    returns a result for each. A group has calls of `size_max` at most, as `size_of` counts each of them; one
    that is larger is a group by itself.
    """

    _leading: _Turn[Call, Result] | None
    """Whose thread is at the first step of a group, or called to it."""

    def __init__(
        self,
        begin: Callable[[Sequence[Call]], Begun],
        finish: Callable[[Begun], Sequence[Result]],
        *,
        size_of: Callable[[Call], int],
        size_max: int,
    ) -> None:
        self._begin = begin
        self._finish = finish
        self._size_of = size_of
        self._size_max = size_max
        self.begin_anew()
        _groupings.add(self)

    def make(self, call: Call) -> Result:
        """The result of `call`, made with those that are waiting.

        Where a group fails each of its calls is made once more, alone and by its own thread: what the fault
        of one is concerns no other. A call must bear that. Of a service that is away all learn at once.

        Raises: what `begin` and `finish` raise for this call.
        """
        if self._leader == get_ident():
            # From within the first step of another: it would wait for itself.
            return self._make_alone(call)
        turn = _Turn[Call, Result](call)
        try:
            self._take_turn(turn)
        except BaseException:
            self._withdraw(turn)
            raise
        if turn.failure is not None:
            raise turn.failure
        if turn.is_made:
            return cast("Result", turn.result)
        return self._make_alone(call)

    def begin_anew(self) -> None:
        """Nobody waits and nobody leads: so it is when made, and in a child that was forked."""
        self._lock = Lock()
        self._waiting: list[_Turn[Call, Result]] = []
        """In order; the first of them is the next to lead."""
        self._leading = None
        self._leader: int | None = None
        """The thread that is at the first step of a group."""

    def _take_turn(self, turn: _Turn[Call, Result]) -> None:
        """Lead the turn's group, or wait until another thread has made it."""
        with self._lock:
            self._waiting.append(turn)
            if self._leading is None:
                self._leading = turn
        if self._leading is not turn:
            turn.is_called.wait()
        if self._leading is turn:
            self._lead()

    def _withdraw(self, turn: _Turn[Call, Result]) -> None:
        """A signal has torn the turn's thread away: nobody may wait for it to lead."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
        if self._leading is turn:
            self._hand_on()

    def _make_alone(self, call: Call) -> Result:
        return self._finish(self._begin([call]))[0]

    def _lead(self) -> None:
        """Make the calls of the next group, the leader's first among them, and call whom they belong to."""
        group: list[_Turn[Call, Result]] = []
        try:
            try:
                self._gather(group)
                self._leader = get_ident()
                begun = self._begin([turn.call for turn in group])
            finally:
                self._hand_on()
            for turn, result in zip(group, self._finish(begun), strict=True):
                turn.result, turn.is_made = result, True
        except Unavailable as failure:
            for turn in group:
                turn.failure = failure
        except Exception:  # whatever it is, each call of a larger group meets it once more, alone
            if len(group) <= 1:
                raise
        finally:
            for turn in group[1:]:
                turn.is_called.set()

    def _gather(self, group: list[_Turn[Call, Result]]) -> None:
        """Have those that wait, as many as a group has, be `group`."""
        with self._lock:
            calls, size = 1, self._size_of(self._waiting[0].call)
            for turn in self._waiting[1:]:
                size += self._size_of(turn.call)
                if size > self._size_max:
                    break
                calls += 1
            # No call stands between the two, so that no signal leaves a turn in neither.
            group += self._waiting[:calls]
            del self._waiting[:calls]

    def _hand_on(self) -> None:
        """Have the first of those that wait lead the next group."""
        with self._lock:
            self._leader = None
            self._leading = self._waiting[0] if self._waiting else None
            if self._leading is not None:
                self._leading.is_called.set()


_groupings: WeakSet[Grouping[Any, Any, Any]] = WeakSet()


def _begin_anew_in_child() -> None:
    """Before the child has a second thread: of two that come first, both would begin anew."""
    for grouping in list(_groupings):
        grouping.begin_anew()


os.register_at_fork(after_in_child=_begin_anew_in_child)


class _Turn(Generic[Call, Result]):
    """A call that waits until it is to lead, or its group has been made."""

    __slots__ = ("call", "failure", "is_called", "is_made", "result")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.is_called = Event()
        self.is_made = False
        self.result: Result | None = None
        self.failure: Unavailable | None = None
