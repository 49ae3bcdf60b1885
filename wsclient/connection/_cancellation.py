"""Whether the running task is cancelled, at a price that a message can pay.

trio's own way to ask is ``await checkpoint_if_cancelled()``, which takes several times as long as
everything else that is done for a short message.  It looks at an attribute of the task that is not
public; so do we, here and nowhere else.  In a trio that has no such attribute, the public question
is asked.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, cast

import trio
from trio.lowlevel import current_task


class CancelStatus(Protocol):
    """What a task knows of the cancel scopes around it."""

    @property
    def effectively_cancelled(self) -> bool:
        """Whether a checkpoint would raise ``trio.Cancelled``."""


class _PublicStatus:
    """The status of whichever task asks."""

    @property
    def effectively_cancelled(self) -> bool:
        return trio.current_effective_deadline() == -math.inf


def cancel_status() -> CancelStatus:
    """The running task's status: true of it until it enters or leaves a cancel scope."""
    task: Any = current_task()
    try:
        return cast("CancelStatus", task._cancel_status)
    except AttributeError:
        return _PublicStatus()


def is_cancelled() -> bool:
    """Whether the next checkpoint of the running task would raise ``trio.Cancelled``."""
    # Not by way of cancel_status(): a call takes as long as the look.
    task: Any = current_task()
    try:
        cancelled: bool = task._cancel_status.effectively_cancelled
    except AttributeError:
        return _PublicStatus().effectively_cancelled
    return cancelled
