"""A line editor, as pure computation: keys in, lines out, and what the terminal is to show.

It shows one row and no more, and scrolls sideways where the text is longer: so whoever prints
something above it has one row to clear and one to draw again, whatever the user has typed, and
wherever the cursor stands.
"""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, TypeAlias

from ._text import JOINERS, escape

HISTORY: Final = 1000
"""Lines that are kept."""


class Key(Enum):
    """What a key asks for that is not the editor's own business."""

    END = "end"
    """Ctrl-D, where there is nothing to delete."""
    CLEAR = "clear"
    """Ctrl-L: clear the screen."""


Happening: TypeAlias = str | Key
"""A line that was entered, or a key."""

CLEAR_ROW: Final = "\r\x1b[K"

# What terminals send for keys without a character (ECMA-48, xterm's "PC-style function keys"), and
# what readline has under the control keys.
_KEYS: Final = {
    "\x01": "home",
    "\x02": "left",
    "\x04": "delete_or_end",
    "\x05": "end",
    "\x06": "right",
    "\x08": "backspace",
    "\t": "complete",
    "\n": "enter",
    "\x0b": "kill_right",
    "\x0c": "clear",
    "\r": "enter",
    "\x0e": "down",
    "\x10": "up",
    "\x15": "kill_left",
    "\x17": "kill_word",
    "\x19": "yank",
    "\x7f": "backspace",
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1bOH": "home",
    "\x1bOF": "end",
    "\x1b[1~": "home",
    "\x1b[3~": "delete",
    "\x1b[4~": "end",
    "\x1b[7~": "home",
    "\x1b[8~": "end",
    "\x1b[1;5C": "word_right",
    "\x1b[1;5D": "word_left",
    "\x1b[1;3C": "word_right",
    "\x1b[1;3D": "word_left",
    "\x1bf": "word_right",
    "\x1bb": "word_left",
    "\x1b\x7f": "kill_word",
}

_PASTE: Final = "\x1b[200~"
_PASTED: Final = "\x1b[201~"

# A whole sequence, or any single character.
_TOKEN: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1bO.|\x1b[^\[O]|[^\x1b]", re.DOTALL)


_LONGEST: Final = 32
"""Characters of a sequence."""


class Editor:
    """What the user is typing.

    Args:
        history: Lines that were entered before, oldest first.
        complete: Gives what a text may go on as, for Tab.
    """

    def __init__(
        self,
        history: Sequence[str] = (),
        complete: Callable[[str], Sequence[str]] = lambda text: (),
    ) -> None:
        self.history = list(history)[-HISTORY:]
        self._candidates = complete
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self._is_pasting = False
        self._place = len(self.history)
        self._draft = ""
        self._killed = ""
        self.text = ""
        """What has been typed."""
        self.cursor = 0
        """Characters of it before the cursor."""

    # Keys.

    def feed(self, data: bytes) -> list[Happening]:
        """Take what the terminal has sent; return what has happened by it."""
        happened: list[Happening] = []
        self._pending += self._decoder.decode(data)
        while self._pending:
            if self._is_pasting:
                if not self._paste():
                    break
                continue
            found = _TOKEN.match(self._pending)
            if found is None:
                # The rest of the sequence is on its way; of one so long it is none that is known.
                if len(self._pending) > _LONGEST:
                    self._pending = ""
                break
            self._pending = self._pending[found.end() :]
            self._press(found[0], happened)
        return happened

    def _paste(self) -> bool:
        """Take what is pasted; false if its end has not come yet."""
        pasted, end, rest = self._pending.partition(_PASTED)
        if not end:
            return False
        # Its line ends are a part of it: so a message of many lines can be pasted.
        self._insert(pasted.replace("\r\n", "\n").replace("\r", "\n"))
        self._pending, self._is_pasting = rest, False
        return True

    def _press(self, token: str, happened: list[Happening]) -> None:
        if token == _PASTE:
            self._is_pasting = True
            return
        match _KEYS.get(token):
            case None:
                if token >= " ":
                    self._insert(token)
            case "enter":
                happened.append(self._enter())
            case "delete_or_end":
                if self.text:
                    self._delete()
                else:
                    happened.append(Key.END)
            case "clear":
                happened.append(Key.CLEAR)
            case name:
                getattr(self, f"_{name}")()

    def _insert(self, text: str) -> None:
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)

    def _cut(self, start: int, end: int) -> str:
        deleted = self.text[start:end]
        self.text = self.text[:start] + self.text[end:]
        self.cursor = start
        return deleted

    def _enter(self) -> str:
        text = self.text
        if text and self.history[-1:] != [text]:
            self.history = [*self.history, text][-HISTORY:]
        self._place = len(self.history)
        self._show("")
        return text

    def _show(self, text: str) -> None:
        self.text, self.cursor = text, len(text)

    def _left(self) -> None:
        self.cursor = max(0, self.cursor - 1)

    def _right(self) -> None:
        self.cursor = min(len(self.text), self.cursor + 1)

    def _home(self) -> None:
        self.cursor = 0

    def _end(self) -> None:
        self.cursor = len(self.text)

    def _word_left(self) -> None:
        self.cursor = self._word_start()

    def _word_right(self) -> None:
        found = re.compile(r"\W*\w*").match(self.text, self.cursor)
        assert found is not None
        self.cursor = found.end()

    def _word_start(self) -> int:
        before = self.text[: self.cursor].rstrip()
        return len(before) - len(re.split(r"\s", before)[-1])

    def _backspace(self) -> None:
        if self.cursor:
            self._cut(self.cursor - 1, self.cursor)

    def _delete(self) -> None:
        self._cut(self.cursor, self.cursor + 1)

    def _kill_left(self) -> None:
        self._killed = self._cut(0, self.cursor)

    def _kill_right(self) -> None:
        self._killed = self._cut(self.cursor, len(self.text))

    def _kill_word(self) -> None:
        self._killed = self._cut(self._word_start(), self.cursor)

    def _yank(self) -> None:
        self._insert(self._killed)

    def _up(self) -> None:
        if self._place:
            self._keep_draft()
            self._place -= 1
            self._show(self.history[self._place])

    def _down(self) -> None:
        if self._place < len(self.history):
            self._place += 1
            is_draft = self._place == len(self.history)
            self._show(self._draft if is_draft else self.history[self._place])

    def _keep_draft(self) -> None:
        """What is being typed is there again below the history."""
        if self._place == len(self.history):
            self._draft = self.text

    def _complete(self) -> None:
        candidates = self._candidates(self.text)
        if candidates:
            common = os.path.commonprefix(list(candidates))  # noqa: RUF071
            self._show(common + " " if len(candidates) == 1 else common)

    # The terminal.

    def row(self, prompt: str, width: int) -> str:
        """What draws the row, with the cursor in its place, whatever the row showed before.

        Args:
            prompt: Stands before the text; plain, one column a character.
            width: Columns of the terminal.
        """
        # The last column stays empty: some terminals wrap after it.
        room = max(1, width - len(prompt) - 1)
        start, before = self.cursor, 0
        # Only what is shown is looked at: what was pasted may be long.
        while start and before + (columns := _width(self.text[start - 1])) < room:
            start -= 1
            before += columns
        shown, used = "", 0
        for character in self.text[start : start + 2 * room]:
            used += _width(character)
            if used > room:
                break
            shown += escape(character)
        column = len(prompt) + before
        return f"{CLEAR_ROW}{prompt}{shown}\r" + (f"\x1b[{column}C" if column else "")


def _width(character: str) -> int:
    """Columns that a terminal gives to it."""
    if len(shown := escape(character)) > 1:
        return len(shown)
    if unicodedata.combining(character) or character in JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
