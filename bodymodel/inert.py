"""What a pickle may name, and the inert objects that stand in for it: they keep arguments and state and never run."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTIN_MODULES = ("__builtin__", "builtins")
_COPYREG_MODULES = ("copy_reg", "copyreg")

_KINDS: dict[tuple[str, str], str] = {
    ("numpy", "ndarray"): "array",
    ("numpy", "matrix"): "array",
    ("numpy.matrixlib.defmatrix", "matrix"): "array",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("collections", "OrderedDict"): "mapping",
    **{(module, "_reconstruct"): "make" for module in _ARRAY_MODULES},
    **{(module, "scalar"): "scalar" for module in _ARRAY_MODULES},
    **{(module, "_frombuffer"): "buffer" for module in _NUMERIC_MODULES},
    **{(module, name): "make" for module in _COPYREG_MODULES for name in ("_reconstructor", "__newobj__")},
    **{(module, "dict"): "mapping" for module in _BUILTIN_MODULES},
    **{
        (module, name): "container"
        for module in _BUILTIN_MODULES
        for name in ("object", "set", "frozenset", "list", "tuple", "bytes", "bytearray")
    },
}
_SPARSE_MODULE = re.compile(r"scipy\.sparse(\._?(csc|csr|coo))?")
_SPARSE_NAME = re.compile(r"(csc|csr|coo)_(matrix|array)")
_CHUMPY_MODULE = re.compile(r"chumpy(\.\w+)*")


@dataclass(frozen=True, slots=True)
class Global:
    """A global that the file may name: what kind of thing it makes, and its name there."""

    kind: str
    name: str


@dataclass(eq=False, slots=True)
class Inert:
    """What calling a global would have made: the global, the arguments and the state, all left alone."""

    made_by: Global
    args: tuple[object, ...]
    state: object = None


def find_global(module: str, name: str) -> Global:
    """Return the stand-in for `module.name`; a ValueError names the global when it is not on the list.

    Nothing is imported: the list is made of names alone.
    """
    kind = _KINDS.get((module, name))
    if kind is None and _SPARSE_MODULE.fullmatch(module) and _SPARSE_NAME.fullmatch(name):
        kind = "sparse"
    if kind is None and _CHUMPY_MODULE.fullmatch(module) and name.isidentifier():
        kind = "chumpy"
    if kind is None:
        raise ValueError(
            "pickle: expected only NumPy arrays, SciPy sparse matrices, chumpy objects and plain containers, "
            f"got the global {_shown(module)}.{_shown(name)}; nothing was run, get the file from its official site"
        )
    return Global(kind, name)


def call(function: object, args: object) -> object:
    """Record the call of a global; an empty mapping is the only object that is really made."""
    if type(function) is not Global or type(args) is not tuple:
        raise ValueError("pickle: expected calls of known globals, got another call; the file is damaged or hostile")
    if function.kind == "make":
        made = args[0] if args else None
        if type(made) is not Global or made.kind in ("make", "encode"):
            raise ValueError(
                f"pickle: expected {function.name} of a known class, got another; the file is damaged or hostile"
            )
        return call(made, () if function.name == "_reconstruct" else args[1:])
    if function.kind == "mapping" and not args:
        return {}
    return Inert(function, args)


def _shown(name: str) -> str:
    """Return a name of the file in a form that fits an error message."""
    return name.encode("ascii", "backslashreplace").decode()[:80]
