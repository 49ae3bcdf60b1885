"""Events as sentences for people."""

from __future__ import annotations

import wsclient

from ._text import count, escape, seconds


def sentence_for(event: wsclient.Event) -> str | None:
    """What happened, in one line that is safe to print; ``None`` where another event says it."""
    sentence = _sentence_for(event)
    # Causes quote the peer.
    return None if sentence is None else escape(sentence)


def _sentence_for(event: wsclient.Event) -> str | None:
    match event:
        # Later attempts have been announced by RetryScheduled.
        case wsclient.ConnectionAttempted(attempt=1):
            return f"connecting to {event.endpoint}"
        case wsclient.ConnectionFailed():
            return f"attempt {event.attempt} failed: {event.cause}"
        case wsclient.ConnectionOpened(subprotocol=str()):
            # Not which: some services take a token for one.
            return "the server chose a subprotocol"
        case wsclient.ConnectionReady(outage=None):
            return "connected"
        case wsclient.ConnectionReady(outage=float() as outage):
            return f"connected again, {seconds(outage)} after the last sign of life"
        case wsclient.ConnectionLost(code=wsclient.CloseCode.ABNORMAL_CLOSURE):
            return f"lost after {seconds(event.duration)}: cut off, without a close frame"
        case wsclient.ConnectionLost():
            return f"lost after {seconds(event.duration)}: {event.cause}"
        case wsclient.ConnectionLeft():
            return f"left after {seconds(event.duration)}: {event.reason}"
        case wsclient.PeerStoppedReading():
            return "the server reads nothing of what is sent"
        case wsclient.FencesLifted():
            return "the server answers no ping: what it has read cannot be proven"
        case wsclient.SuspendDetected():
            return f"the machine has slept for {seconds(event.duration)}"
        case wsclient.RetryScheduled():
            return f"connecting again in {seconds(event.delay)}"
        case wsclient.GapDetected(gap=gap):
            return f"messages of {seconds(gap.until - gap.since)} may be missing"
        case wsclient.JournalFailed():
            return f"the journal is not written: {event.cause}"
        case wsclient.JournalRecovered():
            return "the journal is written again"
        case wsclient.ChannelClosed():
            return "closed" + _unsent(event.cancelled, event.lost_unknown)
        case wsclient.ChannelGaveUp():
            return event.reason + _unsent(event.cancelled, event.lost_unknown)
    return None


def _unsent(cancelled: int, lost_unknown: int) -> str:
    parts = []
    if cancelled:
        parts.append(f"{count(cancelled, 'message')} never written")
    if lost_unknown:
        parts.append(f"{count(lost_unknown, 'message')} perhaps lost")
    return "; " + ", ".join(parts) if parts else ""
