"""Checks of the machine and the state, for ``alphapack doctor``: what is wrong, and what to do about it."""

import contextlib
import os
import platform
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import msgspec

from alphapack.shell.folders import AlreadyRunning, EngineFolder, Lock, engines
from alphapack.shell.journal import JournalError, is_journal, read_journal
from alphapack.shell.ledger import LedgerError, SqliteLedger

FREE_BYTES_MIN = 1_000_000_000
SANE_YEARS = range(2024, 2100)
_PACKAGES = ("numpy", "numba", "msgspec", "litestar", "uvicorn")


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at; ``detail`` says what was found, and where it failed what to do."""

    name: str
    ok: bool
    detail: str


def examine(data: Path, host: str, port: int, wall_s: Callable[[], float] = time.time) -> Iterator[Check]:
    """Yield the checks of this machine and of every engine below the data folder."""
    yield _versions()
    yield _clock(wall_s)
    yield _data_folder(data)
    yield _kernel_cache()
    running = False
    for folder in engines(data):
        name = folder.root.name
        try:
            with Lock(folder.lock):
                yield _journal(folder)
                yield _ledger(folder)
        except AlreadyRunning as error:
            running = True
            yield Check(f"engine {name}", True, f"in use by process {error.pid}: stop it to check its journal and ledger")
    yield _port(host, port, running)


def _versions() -> Check:
    found = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return Check("versions", True, f"python {platform.python_version()}, {found}")


def _clock(wall_s: Callable[[], float]) -> Check:
    first_ns = time.monotonic_ns()
    year = time.gmtime(wall_s()).tm_year
    if year not in SANE_YEARS:
        return Check("clock", False, f"expected a year in {SANE_YEARS.start}..{SANE_YEARS.stop - 1}, found {year}: set the system's clock")
    if time.monotonic_ns() < first_ns:
        return Check("clock", False, "expected a monotonic clock, found one that ran back")
    return Check("clock", True, f"wall clock in {year}, monotonic clock never back")


def _data_folder(data: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=data):
            free_bytes = shutil.disk_usage(data).free
    except OSError as error:
        return Check("data folder", False, f"expected to write {data}, found {error.strerror}: give another --data-dir")
    detail = f"{data}, {free_bytes / 1e9:.1f} GB free"
    if free_bytes < FREE_BYTES_MIN:
        return Check("data folder", False, f"{detail}, expected {FREE_BYTES_MIN / 1e9:.0f} GB: lower storage.retain_gb or free some")
    return Check("data folder", True, detail)


def _kernel_cache() -> Check:
    from alphapack import jit  # Loads numba, which takes its time.

    if jit.CACHE is None or not os.access(jit.CACHE, os.W_OK):
        return Check("kernel cache", False, "expected a folder for compiled kernels, found none to write: set NUMBA_CACHE_DIR")
    return Check("kernel cache", True, str(jit.CACHE))


def _journal(folder: EngineFolder) -> Check:
    name = f"journal of {folder.root.name}"
    if not is_journal(folder.journal):
        return Check(name, True, "none yet")
    complaints: list[str] = []
    inputs = last = 0
    try:
        for entry in read_journal(folder.journal, report=complaints.append):
            inputs, last = inputs + 1, entry.seq
    except (OSError, JournalError) as error:
        return Check(name, False, f"readable up to input {last}, then {error}")
    if complaints:
        return Check(name, True, f"{inputs} inputs up to {last}; {complaints[0]}; the next start cuts it")  # What a crash leaves.
    return Check(name, True, f"{inputs} inputs up to {last}")


def _ledger(folder: EngineFolder) -> Check:
    name = f"ledger of {folder.root.name}"
    if not folder.ledger.is_file():
        return Check(name, True, "none yet")
    try:
        with contextlib.closing(SqliteLedger(folder.ledger, engine=folder.root.name)) as ledger:
            ledger.verify()
            return Check(name, True, f"chain of {ledger.count} rows unbroken")
    except (OSError, LedgerError, sqlite3.Error) as error:
        return Check(name, False, str(error))


def _port(host: str, port: int, running: bool) -> Check:
    name = f"port {port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # As the server does: a closing connection holds nothing.
        try:
            probe.bind((host, port))
        except OSError as error:
            detail = f"{host}:{port} cannot be used ({error.strerror})"
            return Check(name, running, f"{detail}: by the running engine, it seems" if running else f"{detail}: give another --port")
    return Check(name, True, f"{host}:{port} is free")
