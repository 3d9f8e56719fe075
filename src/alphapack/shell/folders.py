"""Where state lives: the data folder, an engine's folder within it, its lock, and its erasure."""

import contextlib
import fcntl
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

import msgspec

_ENGINE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_STATE = ("journal", "checkpoints", "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.sqlite-journal")


class FolderError(OSError):
    """A folder that cannot hold the state."""


class AlreadyRunning(RuntimeError):
    """Another process owns the folder."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        """Name the owner as far as it is known."""
        self.folder, self.pid = folder, pid
        who = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"expected {folder} to be free, found it in use by {who}: stop that one, or give another --data-dir")


def user_data_dir(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return this system's folder for alphapack's data of one user."""
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    if platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        stated = Path(environ.get("XDG_DATA_HOME", ""))  # The standard says to ignore a relative one.
        base = stated if stated.is_absolute() else home / ".local" / "share"
    return base / "alphapack"


def data_dir(configured: str | None, environ: Mapping[str, str], warn: Callable[[str], None]) -> Path:
    """Return the data folder, made and writable: the configured one, else the user's, else a temporary one after a warning."""
    if configured is not None:
        folder = Path(configured).expanduser().absolute()
        reason = _refusal(folder)
        if reason is not None:
            raise FolderError(f"expected a writable data folder, found {folder} ({reason}): give another --data-dir")
        return folder
    try:
        folder = user_data_dir(environ)
        # A service account's home is often a name alone; making it is not ours to do.
        reason = _refusal(folder) if any(parent.is_dir() for parent in list(folder.parents)[:-1]) else f"nothing of {folder} exists"
    except RuntimeError as error:  # An account without a home.
        reason = str(error)
    if reason is None:
        return folder
    fallback = _temporary()
    warn(f"the data folder cannot be written ({reason}): state goes to {fallback}, which the system may erase; give --data-dir to keep it")
    return fallback


def _refusal(folder: Path) -> str | None:
    """Make the folder if need be and return why it cannot be written, None if it can."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{error.strerror or error}: {folder}"


def _temporary() -> Path:
    """Return a folder of this user alone below the system's temporary one, the same at every start where it can be trusted."""
    user = os.getuid()
    folder = Path(tempfile.gettempdir()) / f"alphapack-{user}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        # Anybody may make folders there, so one that somebody else made or can write is not ours.
        trusted = found.st_uid == os.getuid() and not found.st_mode & 0o022
        if trusted and not folder.is_symlink() and _refusal(folder) is None:
            return folder
    return Path(tempfile.mkdtemp(prefix="alphapack-"))


class EngineFolder(msgspec.Struct, frozen=True):
    """Where one engine keeps its state."""

    root: Path

    @classmethod
    def of(cls, data: Path, engine: str) -> "EngineFolder":
        """Return the folder of the engine of that name."""
        if not _ENGINE_NAME.fullmatch(engine):
            raise FolderError(f"expected an engine name of lower-case letters, digits and .-_, found {engine!r}")
        return cls(data / engine)

    @property
    def journal(self) -> Path:
        """The folder of journal segments."""
        return self.root / "journal"

    @property
    def checkpoints(self) -> Path:
        """The folder of whole states."""
        return self.root / "checkpoints"

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.root / "ledger.sqlite"

    @property
    def lock(self) -> Path:
        """The file whose lock is the right to use the folder."""
        return self.root / "lock"

    def create(self) -> None:
        """Make the folders."""
        try:
            for folder in (self.root, self.journal, self.checkpoints):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FolderError(
                f"expected a writable engine folder, found {self.root} ({error.strerror}): give another --data-dir"
            ) from error


class Lock:
    """The exclusive right to an engine's folder; the system frees it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Name the lock file; nothing is taken yet."""
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write our pid, or raise ``AlreadyRunning`` naming the holder's."""
        if self._descriptor is not None:
            raise AssertionError(f"{self.path} is already locked by this object")
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(descriptor, 32)
            os.close(descriptor)
            raise AlreadyRunning(self.path.parent, int(holder) if holder.strip().isdigit() else None) from error
        except OSError as error:
            os.close(descriptor)
            raise FolderError(f"expected a file system with locks, found {self.path} without ({error}): give another --data-dir") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; the file stays, because a waiter may hold it open."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "Lock":
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def engines(data: Path) -> Iterator[EngineFolder]:
    """Yield the engine folders below a data folder, by name."""
    if data.is_dir():
        for root in sorted(data.iterdir()):
            folder = EngineFolder(root)
            if root.is_dir() and (folder.journal.is_dir() or folder.ledger.is_file()):
                yield folder


def reset(folder: EngineFolder) -> list[Path]:
    """Erase one engine's state, and nothing else that lies there; return what went. Refused while the engine runs."""
    gone = []
    with contextlib.ExitStack() as locks:
        locks.enter_context(Lock(folder.lock))
        if folder.journal.is_dir():  # It has a lock of its own, for whoever writes it without an engine around.
            locks.enter_context(Lock(folder.journal / "lock"))
        for name in _STATE:
            path = folder.root / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.is_file() or path.is_symlink():
                path.unlink()
            else:
                continue
            gone.append(path)
    return gone
