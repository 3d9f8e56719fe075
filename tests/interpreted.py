"""The kernels once more as plain Python, in which whatever they read of a text is watched."""

import importlib
import struct
from collections import Counter
from types import FunctionType, ModuleType

import numpy as np

from alphapack import jit

NAMES = ("book", "wire", "binance", "tape", "flow", "frames")


class Text(bytes):
    """Bytes outside of which nothing may be read; a negative index is outside too."""

    def __getitem__(self, at):  # type: ignore[no-untyped-def, override]
        assert 0 <= at < len(self), f"read at {at} of {len(self)} bytes"
        return super().__getitem__(int(at))


def address(raw: bytes) -> bytes:
    return raw


def load_word(raw: bytes, at: int) -> int:
    assert 0 <= at <= len(raw) - 8, f"read a word at {at} of {len(raw)} bytes"
    return int.from_bytes(bytes(raw)[at : at + 8], "little", signed=True)


def load_byte(raw: bytes, at: int) -> int:
    return raw[at]


def modules(calls: Counter[str] | None = None) -> dict[str, ModuleType]:
    """Return the kernel modules with interpreted functions that call each other; ``calls`` counts them by module and name."""
    spaces = {name: ModuleType(name) for name in NAMES}
    instructions = {
        "leading_zeros": jit._leading_zeros,
        "trailing_zeros": jit._trailing_zeros,
        "address": address,
        "load_word": load_word,
        "load_byte": load_byte,
    }
    for name, space in spaces.items():
        own = importlib.import_module(f"alphapack.kernels.{name}")
        space.__dict__.update(vars(own) | {one: spaces[one] for one in NAMES if one in vars(own)})
        space.__dict__.update({one: found for one, found in instructions.items() if one in vars(own)})
        for kernel in kernels(own):
            plain = getattr(vars(own)[kernel], "py_func", vars(own)[kernel])
            function = FunctionType(plain.__code__, space.__dict__, f"{name}.{kernel}")
            setattr(space, kernel, function if calls is None else _counted(function, calls))
    return spaces


def kernels(module: ModuleType) -> list[str]:
    """Return the names of the kernels that a module defines."""
    own = [name for name, one in vars(module).items() if callable(one) and getattr(one, "__module__", "") == module.__name__]
    return [name for name in own if name != "word_of"]


def _counted(function: FunctionType, calls: Counter[str]):  # type: ignore[no-untyped-def]
    def counted(*arguments):  # type: ignore[no-untyped-def]
        calls[function.__name__] += 1
        return function(*arguments)

    return counted


def bits(value: object) -> object:
    """Return what must be equal to the last bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple):
        return tuple(map(bits, value))
    if isinstance(value, float):
        return struct.pack("<d", value)
    return int(value) if isinstance(value, int | np.integer) else value
