"""The state of a machine that reads a pickle: the data, the stack, the marks and the memo, all checked."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class PickleMachine:
    """Where a pickle is being read, and what it has built so far."""

    data: bytes
    position: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)

    def take(self, count: int) -> memoryview:
        """Return the next `count` bytes without copying them."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise ValueError("pickle: expected more data, got its end; the file is truncated or damaged")
        part = memoryview(self.data)[self.position : end]
        self.position = end
        return part

    def line(self) -> memoryview:
        """Return what comes before the next line end, without copying it."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise ValueError("pickle: expected more data, got its end; the file is truncated or damaged")
        part = memoryview(self.data)[self.position : end]
        self.position = end + 1
        return part

    def unpack(self, form: struct.Struct) -> Any:
        """Return the next number of the given form."""
        return form.unpack(self.take(form.size))[0]

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        """Return the top of the stack, which must be exactly of the type that is to be filled."""
        top = self.stack[-1]
        if type(top) is not kind:
            raise ValueError(
                f"pickle: expected {kind.__name__} to fill, got another object; the file is damaged or hostile"
            )
        return top

    def remember(self, index: int) -> None:
        """Keep the top of the stack in the memo."""
        if not 0 <= index < 1 << 32:
            raise ValueError("pickle: expected a memo index of 32 bits, got another; the file is damaged")
        self.memo[index] = self.stack[-1]
