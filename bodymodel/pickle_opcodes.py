"""The opcodes of pickle that plain data needs, and the loop that runs them.

Python's own unpicklers call what the file tells them to call, and allocate what the file tells them to allocate. This
loop knows a fixed list of opcodes. It never imports, calls, hashes or copies what the file describes beyond plain
values, reads only bytes that are there, and stops after `MAX_OPERATIONS` opcodes, so the size of the file and that
number bound the memory it takes.
"""

from __future__ import annotations

import codecs
import pickletools
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from .inert import Inert, call, find_global
from .pickle_machine import PickleMachine

MAX_OPERATIONS = 1_000_000
MAX_NAME = 256
"""Longer texts of Python 2 pickles are array contents and stay bytes."""

MAX_DIGITS = 64
_PLAIN_KEYS = (str, bytes, int, float, bool, type(None))

Operation: TypeAlias = Callable[[PickleMachine], object]


def unpickle(data: bytes) -> object:
    """Return what the pickle holds, with `Inert` in the place of every object that is not a plain value.

    Raises:
        ValueError: an opcode or a global that is not on the lists, or damaged data.
    """
    machine = PickleMachine(data)
    for _ in range(MAX_OPERATIONS):
        code = machine.take(1)[0]
        if code == _STOP:
            return machine.stack.pop()
        operation = _OPERATIONS.get(code)
        if operation is None:
            raise ValueError(f"pickle: expected opcodes of plain data, got {_opcode_name(code)}; nothing was run")
        operation(machine)
    raise ValueError(f"pickle: expected at most {MAX_OPERATIONS} operations, got more; this is not a body model file")


def _push(value: object) -> Operation:
    return lambda machine: machine.stack.append(value)


def _push_new(kind: type) -> Operation:
    return lambda machine: machine.stack.append(kind())


def _number(form: str) -> Operation:
    packed = struct.Struct(form)
    return lambda machine: machine.stack.append(machine.unpack(packed))


def _counted(form: str, make: Callable[[Any], object]) -> Operation:
    packed = struct.Struct(form)
    return lambda machine: machine.stack.append(make(machine.take(machine.unpack(packed))))


def _line(make: Callable[[memoryview], object]) -> Operation:
    return lambda machine: machine.stack.append(make(machine.line()))


def _text_or_bytes(part: memoryview | bytes) -> object:
    """Python 2 kept names and array contents in one type: short ones may be names, long ones stay bytes."""
    return str(part, "latin1") if len(part) <= MAX_NAME else part


def _bytes(part: memoryview) -> object:
    return bytes(part) if len(part) <= MAX_NAME else part


def _utf8(part: memoryview) -> str:
    return str(part, "utf-8", "surrogatepass")


def _long(part: memoryview) -> int:
    if len(part) > MAX_DIGITS:
        raise ValueError("pickle: expected integers of at most 512 bits, got a longer one; the file is damaged")
    return int.from_bytes(part, "little", signed=True)


def _integer(line: memoryview) -> int | bool:
    if line == b"00" or line == b"01":
        return line == b"01"
    if len(line) > MAX_DIGITS:
        raise ValueError(
            f"pickle: expected integers of at most {MAX_DIGITS} digits, got a longer one; the file is damaged"
        )
    return int(bytes(line).removesuffix(b"L"))


def _float(line: memoryview) -> float:
    if len(line) > MAX_DIGITS:
        raise ValueError(
            f"pickle: expected floats of at most {MAX_DIGITS} digits, got a longer one; the file is damaged"
        )
    return float(bytes(line))


def _quoted(line: memoryview) -> object:
    if len(line) < 2 or line[0] not in b"'\"" or line[0] != line[-1]:
        raise ValueError("pickle: expected a quoted text, got another; the file is damaged")
    return _text_or_bytes(codecs.escape_decode(line[1:-1])[0])


def _unicode_line(line: memoryview) -> str:
    return str(line, "raw-unicode-escape")


def _tuple_of(count: int) -> Operation:
    def run(machine: PickleMachine) -> None:
        items = tuple(machine.stack[-count:])
        if len(items) < count:
            raise IndexError("stack")
        machine.stack[-count:] = [items]

    return run


def _collect(kind: type) -> Operation:
    return lambda machine: machine.stack.append(kind(machine.since_mark()))


def _append(machine: PickleMachine) -> None:
    item = machine.stack.pop()
    machine.top(list).append(item)


def _appends(machine: PickleMachine) -> None:
    items = machine.since_mark()
    machine.top(list).extend(items)


def _fill(target: dict[Any, object], items: list[Any]) -> None:
    if len(items) % 2:
        raise ValueError("pickle: expected a value for each key, got one too few; the file is damaged")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing a nested tuple recurses in C and huge integers can be made to collide, so other keys are left out.
        if type(key) in _PLAIN_KEYS and not (type(key) is int and key.bit_length() > 64):
            target[key] = value


def _setitem(machine: PickleMachine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _fill(machine.top(dict), [key, value])


def _setitems(machine: PickleMachine) -> None:
    items = machine.since_mark()
    _fill(machine.top(dict), items)


def _dict(machine: PickleMachine) -> None:
    made: dict[Any, object] = {}
    _fill(made, machine.since_mark())
    machine.stack.append(made)


def _global(machine: PickleMachine) -> None:
    machine.stack.append(find_global(str(machine.line(), "utf-8"), str(machine.line(), "utf-8")))


def _stack_global(machine: PickleMachine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not (isinstance(module, str) and isinstance(name, str)):
        raise ValueError("pickle: expected the name of a global, got another object; the file is damaged or hostile")
    machine.stack.append(find_global(module, name))


def _reduce(machine: PickleMachine) -> None:
    args, function = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(call(function, args))


def _newobj_ex(machine: PickleMachine) -> None:
    if machine.stack.pop() != {}:
        raise ValueError("pickle: expected no keyword arguments, got some; the file is damaged or hostile")
    _reduce(machine)


def _inst(machine: PickleMachine) -> None:
    _global(machine)
    function = machine.stack.pop()
    machine.stack.append(call(function, tuple(machine.since_mark())))


def _obj(machine: PickleMachine) -> None:
    function, *args = machine.since_mark()
    machine.stack.append(call(function, tuple(args)))


def _build(machine: PickleMachine) -> None:
    state = machine.stack.pop()
    machine.top(Inert).state = state


def _pop(machine: PickleMachine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _opcode_name(code: int) -> str:
    names = {opcode.code: opcode.name for opcode in pickletools.opcodes}
    return f"the opcode {names[chr(code)]}" if chr(code) in names else f"the byte 0x{code:02x}"


_STOP = ord(".")
_OPERATIONS: dict[int, Operation] = {
    ord(code): operation
    for code, operation in {
        "\x80": lambda machine: machine.take(1),  # PROTO: every protocol reads the same way
        "\x95": lambda machine: machine.take(8),  # FRAME: a hint for buffering
        "N": _push(None),
        "\x88": _push(True),
        "\x89": _push(False),
        ")": _push(()),
        "]": _push_new(list),
        "}": _push_new(dict),
        "\x8f": _push_new(list),  # EMPTY_SET: a list, so that nothing is hashed
        "I": _line(_integer),
        "L": _line(_integer),
        "F": _line(_float),
        "S": _line(_quoted),
        "V": _line(_unicode_line),
        "J": _number("<i"),
        "K": _number("<B"),
        "M": _number("<H"),
        "G": _number(">d"),
        "\x8a": _counted("<B", _long),
        "\x8b": _counted("<i", _long),
        "T": _counted("<i", _text_or_bytes),
        "U": _counted("<B", _text_or_bytes),
        "X": _counted("<I", _utf8),
        "\x8c": _counted("<B", _utf8),
        "\x8d": _counted("<Q", _utf8),
        "B": _counted("<I", _bytes),
        "C": _counted("<B", _bytes),
        "\x8e": _counted("<Q", _bytes),
        "\x96": _counted("<Q", _bytes),
        "(": lambda machine: machine.marks.append(len(machine.stack)),
        "t": _collect(tuple),
        "l": _collect(list),
        "\x91": _collect(list),  # FROZENSET
        "d": _dict,
        "\x85": _tuple_of(1),
        "\x86": _tuple_of(2),
        "\x87": _tuple_of(3),
        "a": _append,
        "e": _appends,
        "\x90": _appends,  # ADDITEMS
        "s": _setitem,
        "u": _setitems,
        "0": _pop,
        "1": lambda machine: machine.since_mark(),
        "2": lambda machine: machine.stack.append(machine.stack[-1]),
        "g": lambda machine: machine.stack.append(machine.memo[_integer(machine.line())]),
        "h": lambda machine: machine.stack.append(machine.memo[machine.take(1)[0]]),
        "j": lambda machine: machine.stack.append(machine.memo[machine.unpack(struct.Struct("<I"))]),
        "p": lambda machine: machine.remember(_integer(machine.line())),
        "q": lambda machine: machine.remember(machine.take(1)[0]),
        "r": lambda machine: machine.remember(machine.unpack(struct.Struct("<I"))),
        "\x94": lambda machine: machine.remember(len(machine.memo)),
        "c": _global,
        "\x93": _stack_global,
        "R": _reduce,
        "\x81": _reduce,  # NEWOBJ: nothing is called, so both are one
        "\x92": _newobj_ex,
        "i": _inst,
        "o": _obj,
        "b": _build,
    }.items()
}
