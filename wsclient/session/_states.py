"""A channel's states: which may follow which, and who waits for them.

``TRANSITIONS`` is the whole of it: a step that has no row is a bug in the supervisor, and raises.
While a channel drains it may lose its connection and open others; it stays ``DRAINING``.
No state but ``READY`` and the final ones lacks something that ends it:

- ``CONNECTING``: ``ConnectionOptions.connect_timeout``
- ``ESTABLISHING``: ``ConnectionOptions.establish_timeout``
- ``WAITING``: the delay that the retry policy gave
- ``DRAINING``: the time given to ``drain()``
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

import trio

from wsclient.events import ChannelState


class Step(Enum):
    """What makes a channel's state change."""

    OPENED = "the connection is open"
    ESTABLISHED = "the connection is established"
    LOST = "the connection, or the attempt at one, has ended"
    MOVED = "asked to reconnect"
    WAITED = "the delay is over"
    LEFT = "asked to drain"
    CLOSED = "asked to close"
    GAVE_UP = "the policy gave up"


_ALIVE: Final = {
    Step.LEFT: ChannelState.DRAINING,
    Step.CLOSED: ChannelState.CLOSED,
    Step.GAVE_UP: ChannelState.FAILED,
}

TRANSITIONS: Final[dict[ChannelState, dict[Step, ChannelState]]] = {
    ChannelState.CONNECTING: {
        Step.OPENED: ChannelState.ESTABLISHING,
        Step.LOST: ChannelState.WAITING,
        **_ALIVE,
    },
    ChannelState.ESTABLISHING: {
        Step.ESTABLISHED: ChannelState.READY,
        Step.LOST: ChannelState.WAITING,
        **_ALIVE,
    },
    ChannelState.READY: {
        # Another connection has taken over.
        Step.ESTABLISHED: ChannelState.READY,
        Step.MOVED: ChannelState.CONNECTING,
        Step.LOST: ChannelState.WAITING,
        **_ALIVE,
    },
    ChannelState.WAITING: {
        Step.WAITED: ChannelState.CONNECTING,
        **_ALIVE,
    },
    ChannelState.DRAINING: {
        Step.OPENED: ChannelState.DRAINING,
        Step.ESTABLISHED: ChannelState.DRAINING,
        Step.LOST: ChannelState.DRAINING,
        Step.MOVED: ChannelState.DRAINING,
        Step.WAITED: ChannelState.DRAINING,
        Step.CLOSED: ChannelState.CLOSED,
        Step.GAVE_UP: ChannelState.FAILED,
    },
    ChannelState.CLOSED: {},
    ChannelState.FAILED: {},
}


class _Waiter:
    __slots__ = ("entered", "states", "woken")

    def __init__(self, states: tuple[ChannelState, ...]) -> None:
        self.states = states
        self.entered: ChannelState | None = None
        self.woken = trio.Event()


class States:
    """The state of one channel.

    Args:
        changed: Called after each change with the previous state, the new one, and the cause.
    """

    def __init__(self, changed: Callable[[ChannelState, ChannelState, str], None]) -> None:
        self.state = ChannelState.CONNECTING
        self._changed = changed
        self._waiters: list[_Waiter] = []

    def advance(self, step: Step, cause: str | None = None) -> None:
        """Take a step, because of ``cause``.

        Raises:
            RuntimeError: The table has no such step; a bug.
        """
        following = TRANSITIONS[self.state].get(step)
        if following is None:
            raise RuntimeError(f"no transition from {self.state} by {step}")
        if following is self.state:
            return
        previous, self.state = self.state, following
        for waiter in self._waiters:
            # Whoever waits for a state also wakes when it can no longer come.
            if waiter.entered is None and (following in waiter.states or following.is_final):
                waiter.entered = following
                waiter.woken.set()
        self._changed(previous, following, cause or step.value)

    async def wait_for(self, *states: ChannelState) -> ChannelState:
        """Wait until one of ``states`` is entered, if it is not the state already.

        A state that is entered and left again before the waiter runs has been seen all the same.

        Returns:
            The state that ended the wait: one of ``states``, or a final one.
        """
        if self.state in states or self.state.is_final:
            state = self.state
            await trio.lowlevel.checkpoint()
            return state
        # Listening from the first step on: a checkpoint before would miss what comes meanwhile.
        waiter = _Waiter(states)
        self._waiters.append(waiter)
        try:
            await waiter.woken.wait()
        finally:
            self._waiters.remove(waiter)
        assert waiter.entered is not None
        return waiter.entered
