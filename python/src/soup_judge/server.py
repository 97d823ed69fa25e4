"""A judge as a process: its socket, its beginning and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket as sockets
import stat
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import grpc

from soup_judge._wire import judge_pb2_grpc
from soup_judge.judge import Judge
from soup_judge.servicer import Servicer
from soup_judge.thread import JudgeThread

SOCKET_VARIABLE = "SOUP_JUDGE_SOCKET"
LONGEST_PATH = 107
"""Bytes of a path that fit into the address of a Unix socket."""
HANDLERS = 8
"""Calls at a time. A worker makes one, and releases beside it; the rest is for its reconnecting."""
GRACE = 1.0
"""Seconds that calls have when a judge ends."""


OPTIONS = [
    # Positions and logits may be many; whoever can open the socket is trusted.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A worker may ask as often as it likes whether the judge is alive.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
]


class Server:
    """Serves a judge on a Unix socket, in threads beside the caller's; a context manager."""

    def __init__(self, judge: Judge, socket: str | os.PathLike[str]) -> None:
        """Raises `ValueError` for a path that cannot be a socket, and `WrongAnswer` for a judge that does not say who
        it is."""
        self.path = Path(socket).absolute()
        if len(os.fsencode(self.path)) > LONGEST_PATH:
            raise ValueError(f"{self.path} is too long for a Unix socket: {LONGEST_PATH} bytes at most")
        self._thread = JudgeThread()
        self._grpc = grpc.server(
            ThreadPoolExecutor(HANDLERS, thread_name_prefix="call"),
            options=OPTIONS,
        )
        judge_pb2_grpc.add_JudgeServicer_to_server(Servicer(judge, self._thread), self._grpc)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """Creates the socket, for its owner alone, and serves. Raises `OSError` where something else is there."""
        clear_stale(self.path)
        # The mode is right from the first moment on, not from a later chmod.
        mask = os.umask(0o177)
        try:
            self._grpc.add_insecure_port(address(self.path))
        except RuntimeError as error:
            raise OSError(f"cannot create the socket {self.path}: {error}") from error
        finally:
            os.umask(mask)
        self._identity = _identity(self.path)
        self._grpc.start()

    def stop(self, grace: float = GRACE) -> bool:
        """Ends within about two `grace` seconds and removes the socket. Whether the judge's code has ended too."""
        self._grpc.stop(grace).wait()
        # Another judge may have taken the path meanwhile.
        if _identity(self.path) == self._identity:
            self.path.unlink(missing_ok=True)
        return self._thread.close(grace)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(judge: Judge, socket: str | os.PathLike[str] | None = None) -> None:
    """Serves a judge until the process is told to end; call it from the main thread.

    The path of the socket is `socket`, or that after `--socket` on the command line, or in SOUP_JUDGE_SOCKET: exits
    with a text where there is none, or where two differ. Ends on SIGTERM and SIGINT, and with SOUP_JUDGE_SOCKET, which
    a worker sets, when standard input ends: that is how a judge learns that its worker is gone.
    """
    path = find_socket(socket, sys.argv[1:])
    server = Server(judge, path)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    if SOCKET_VARIABLE in os.environ:
        threading.Thread(target=_await_end_of_input, args=(ended,), name="input", daemon=True).start()
    server.start()
    print(f"soup_judge: {type(judge).__name__} serves {server.path}", file=sys.stderr, flush=True)
    ended.wait()
    if not server.stop():
        # The judge computes still. An interpreter that ends under native code may crash or hang.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def find_socket(parameter: str | os.PathLike[str] | None, arguments: Sequence[str]) -> Path:
    """The socket's path from where it may be said. Raises `SystemExit` with a text where it is not, or in two ways."""
    told = {
        "the parameter": os.fspath(parameter) if parameter is not None else None,
        "--socket": _argument(arguments),
        SOCKET_VARIABLE: os.environ.get(SOCKET_VARIABLE),
    }
    paths = {where: path for where, path in told.items() if path}
    if not paths:
        raise SystemExit(f"soup_judge: where is the socket? Give --socket PATH, or let a worker set {SOCKET_VARIABLE}")
    if len(set(paths.values())) > 1:
        raise SystemExit(f"soup_judge: {' and '.join(f'{where} ({path})' for where, path in paths.items())} differ")
    return Path(next(iter(paths.values())))


def _argument(arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument.startswith("--socket="):
            return argument.partition("=")[2]
        if argument == "--socket":
            if index + 1 == len(arguments):
                raise SystemExit("soup_judge: --socket needs a path")
            return arguments[index + 1]
    return None


def address(path: Path) -> str:
    """The gRPC address of a socket. Characters that mean something in URIs are escaped."""
    return f"unix:{quote(os.fsencode(path))}"


def clear_stale(path: Path) -> None:
    """Removes a socket that nobody serves. Raises `OSError` for one that somebody does, and for everything else that
    is there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(f"{path} is there already, and no socket")
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except FileNotFoundError:
            return
    raise FileExistsError(f"{path} is served by another process")


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        return found.st_dev, found.st_ino
    return None


def _await_end_of_input(ended: threading.Event) -> None:
    # Not through sys.stdin, whose lock would be held when the interpreter ends.
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    ended.set()
