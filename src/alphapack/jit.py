"""The one door to numba.

Law: nothing else imports numba. Its cache notices a changed kernel but not a changed callee in another file, so every
state of the kernels has a folder of its own, named by a hash of all that machine code depends on. numba reads
``NUMBA_CACHE_DIR`` when it is imported and again at each compilation, hence the variable is set here, first, and stays
set; a folder that the user named is left as it is. Compiled code is executed when it is loaded, so a folder that
somebody else could have filled is never used.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from llvmlite import binding

F = TypeVar("F", bound=Callable[..., object])
Text = bytes | int
"""Bytes, or where they begin: see ``address``."""

HASH_BYTES = 16
UNUSED_S_MAX = 30 * 86_400
PRUNED_MAX = 4
"""Old folders removed at one start, so that a start never waits for a large clean-up."""

PACKAGE = Path(__file__).parent
CODEGEN_SWITCHES = ("NUMBA_BOUNDSCHECK", "NUMBA_CPU_FEATURES", "NUMBA_CPU_NAME", "NUMBA_DEBUGINFO", "NUMBA_OPT")
"""They change the machine code, and numba's own index forgets most of them."""


def fingerprint(package: Path, environ: Mapping[str, str]) -> str:
    """Return the hash of all that compiled kernels depend on: sources, versions, switches and the processor."""
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    # Inlined array types and compile options come from beside the kernels, and numba's index knows neither.
    for source in [package / "jit.py", *sorted((package / "kernels").rglob("*.py"))]:
        content = source.read_bytes()
        digest.update(f"{source.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    facts = [
        sys.version,
        *(f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")),
        *(f"{name}={environ.get(name, '')}" for name in CODEGEN_SWITCHES),
        platform.machine(),
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
    ]
    digest.update("\n".join(facts).encode())
    return digest.hexdigest()


def user_cache(environ: Mapping[str, str]) -> Path | None:
    """Return the folder in which this system keeps a user's caches, None where the user has no home."""
    named = Path(environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named
    try:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError:  # No HOME, and an account without an entry in the password file.
        return None
    if not home.is_dir():  # Such as /nonexistent, which is not ours to make.
        return None
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"


def private(folder: Path) -> bool:
    """Make the folder if need be; tell whether we can write it and nobody else can."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return False
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def roots(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the folders that may hold our caches, the better first."""
    home = user_cache(environ)
    if home is not None:
        yield home / "alphapack" / "numba"
    user = os.getuid()
    with contextlib.suppress(FileNotFoundError):  # No temporary folder can be written either.
        yield Path(tempfile.gettempdir()) / f"alphapack-numba-{user}"


def prune(root: Path, current: Path) -> None:
    """Remove a few folders of kernels that nobody has loaded for a month."""
    with contextlib.suppress(OSError):
        os.utime(current)
        oldest = current.stat().st_mtime - UNUSED_S_MAX
        others = [path for path in root.iterdir() if re.fullmatch(r"[0-9a-f]{32}", path.name) and path.stat().st_mtime < oldest]
        for path in sorted(others)[:PRUNED_MAX]:
            shutil.rmtree(path, ignore_errors=True)


def cache_folder(package: Path, environ: Mapping[str, str]) -> Path | None:
    """Return where compiled kernels are kept, None where no folder can be written and trusted."""
    if environ.get("NUMBA_CACHE_DIR"):
        return Path(environ["NUMBA_CACHE_DIR"])
    name = fingerprint(package, environ)
    for root in roots(environ):
        if private(root) and private(root / name):
            prune(root, root / name)
            return root / name
    return None


def is_cached(kernel: str) -> bool:
    """Tell whether machine code of a kernel, such as ``frames.frame``, lies in the cache."""
    return CACHE is not None and any(CACHE.rglob(f"{kernel}-*.nbi"))


CACHE = cache_folder(PACKAGE, os.environ)
if CACHE is not None:
    os.environ["NUMBA_CACHE_DIR"] = str(CACHE)

import numba  # noqa: E402  # The law above: the folder is named before numba is imported.


def njit(function: F) -> F:
    """Compile a kernel on its first call; ``NUMBA_DISABLE_JIT=1`` leaves it interpreted, with equal results.

    Neither fastmath nor parallel, which reorder sums. Kernels keep the interpreter's lock: giving it up for a microsecond
    lets the committer's thread take it for milliseconds.
    """
    return _compiled(function, nogil=False)


def njit_off_loop(function: F) -> F:
    """Compile the entry of work that takes milliseconds on a thread of its own: it gives up the lock while it runs."""
    return _compiled(function, nogil=True)


def _compiled(function: F, *, nogil: bool) -> F:
    compiled: F = numba.njit(
        function, cache=CACHE is not None, fastmath=False, parallel=False, nogil=nogil, error_model="python", _nrt=False
    )
    return compiled


def _leading_zeros(word: int) -> int:
    """Return how many of the 64 bits of a word stand above its highest one."""
    return 64 - (int(word) & 0xFFFFFFFFFFFFFFFF).bit_length()


def _trailing_zeros(word: int) -> int:
    """Return how many of the 64 bits of a word stand below its lowest one."""
    low = int(word) & 0xFFFFFFFFFFFFFFFF
    return (low & -low).bit_length() - 1 if low else 64


def _address(raw: bytes) -> Text:
    """Return what ``load_byte`` and ``load_word`` read from: compiled, the address of the bytes, which costs nothing to pass on.

    It is good as long as ``raw`` lives, and knows no end: whoever reads has made sure that the bytes are there.
    """
    return raw


def _load_word(raw: Text, at: int) -> int:
    """Return the eight bytes at ``at`` as an int64, the first byte lowest."""
    assert isinstance(raw, bytes) and 0 <= at <= len(raw) - 8, "the caller has seen to it that they are there"
    return int.from_bytes(raw[at : at + 8], "little", signed=True)


def _load_byte(raw: Text, at: int) -> int:
    """Return the byte at ``at``."""
    assert isinstance(raw, bytes) and at >= 0, "the caller has seen to it that it is there"
    return raw[at]


if numba.config.DISABLE_JIT:
    leading_zeros, trailing_zeros = _leading_zeros, _trailing_zeros
    address, load_word, load_byte = _address, _load_word, _load_byte
else:
    # Each is one machine instruction, which nothing in the language names.
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic
    from numba.np import arrayobj

    @intrinsic
    def _ctlz(typingctx, word):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

        return types.int64(types.int64), codegen

    @intrinsic
    def _cttz(typingctx, word):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

        return types.int64(types.int64), codegen

    def place(context: Any, builder: Any, kind: Any, raw: Any, at: Any, bits: int) -> Any:
        """Return a pointer to so many bits at an index of bytes, or from an address on."""
        pointer = ir.IntType(bits).as_pointer()
        if isinstance(kind, types.Integer):
            return builder.inttoptr(builder.add(raw, at), pointer)
        data = arrayobj.make_array(kind)(context, builder, raw).data
        return builder.bitcast(builder.gep(data, [at]), pointer)

    @intrinsic
    def _data(typingctx, raw):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.ptrtoint(arrayobj.make_array(signature.args[0])(context, builder, args[0]).data, ir.IntType(64))

        return types.int64(raw), codegen

    @intrinsic
    def _word(typingctx, raw, at):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.load(place(context, builder, signature.args[0], args[0], args[1], 64), align=1)

        return types.int64(raw, types.int64), codegen

    @intrinsic
    def _byte(typingctx, raw, at):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.zext(builder.load(place(context, builder, signature.args[0], args[0], args[1], 8)), ir.IntType(64))

        return types.int64(raw, types.int64), codegen

    @njit
    def leading_zeros(word: int) -> int:
        """Return how many of the 64 bits of a word stand above its highest one."""
        return _ctlz(word)  # type: ignore[no-any-return]

    @njit
    def trailing_zeros(word: int) -> int:
        """Return how many of the 64 bits of a word stand below its lowest one."""
        return _cttz(word)  # type: ignore[no-any-return]

    @njit
    def address(raw: bytes) -> Text:
        """Return what ``load_byte`` and ``load_word`` read from: the address of the bytes, which costs nothing to pass on.

        It is good as long as ``raw`` lives, and knows no end: whoever reads has made sure that the bytes are there.
        """
        return _data(raw)  # type: ignore[no-any-return]

    @njit
    def load_word(raw: Text, at: int) -> int:
        """Return the eight bytes at ``at`` as an int64, the first byte lowest."""
        return _word(raw, at)  # type: ignore[no-any-return]

    @njit
    def load_byte(raw: Text, at: int) -> int:
        """Return the byte at ``at``."""
        return _byte(raw, at)  # type: ignore[no-any-return]
