"""Inside of a Dask worker: starts a host process, and passes bytes between it and the bridge.

The bridge sends this file's text along, so that it needs nothing but the standard library and what a Dask worker has.
Both directions count their bytes: what is sent or asked for twice, because an answer was lost, arrives once.
"""

import asyncio
import contextlib
import hashlib
import importlib.util
import io
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

# A bridge that asks for nothing for so long is gone, and its hosts with it.
SILENCE_SECONDS = 60.0
LOOK_SECONDS = 1.0
READ_BYTES = 1 << 20
# So much waits here before a host has to.
ENOUGH_BYTES = 8 << 20
END_SECONDS = 20.0
NEEDED = ("cloudpickle", "numpy", "pandas", "pyarrow", "pydantic")

relays: "dict[str, Relay]" = {}


class Relay:
    """One host process of one pool."""

    def __init__(self, pool: str, folder: str) -> None:
        """Begin without a process; the folder is the Dask worker's own."""
        self.pool = pool
        self.folder = folder
        self.token = os.urandom(8).hex()
        self.ended = threading.Event()
        self.why = ""
        self.heard_at = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._to_host = bytearray()
        self._received = 0
        self._from_host = bytearray()
        self._first = 0
        self._news = asyncio.Event()
        self._is_reading = False

    def source(self, digest: str) -> str:
        """Return where jobpool's own code of that digest lies, or is to lie."""
        return os.path.join(self.folder, f"jobpool-{digest}")

    def start(self, digest: str) -> None:
        """Start the host process; in the event loop."""
        path = os.pathsep.join(filter(None, (self.source(digest), os.environ.get("PYTHONPATH"))))
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "jobpool_cli.engines.remote.host",
                    f"--channel={theirs.fileno()}", f"--folder={self.folder}",
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        self._channel = ours
        self._read_on()

    def put(self, at: int, data: bytes) -> int:
        """Take bytes for the host that begin at an offset; return up to where all have come."""
        fresh = data[self._received - at :] if at <= self._received else b""
        self._received += len(fresh)
        self._to_host += fresh
        self._write()
        return self._received

    async def get(self, at: int, wait: float) -> "tuple[bytes, str]":
        """Return bytes of the host's from an offset on, when there are some; and why there will be no more, if so."""
        self.heard_at = time.monotonic()
        del self._from_host[: at - self._first]
        self._first = at
        self._read_on()
        if not self._from_host and not self.ended.is_set():
            self._news.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), wait)
        self.heard_at = time.monotonic()
        return bytes(self._from_host[:ENOUGH_BYTES]), "" if self._from_host or not self.ended.is_set() else self.why

    def _read_on(self) -> None:
        if self._channel is not None and not self._is_reading and len(self._from_host) < ENOUGH_BYTES:
            self._is_reading = True
            asyncio.get_running_loop().add_reader(self._channel, self._readable)

    def _readable(self) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            data = channel.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end("its host process ended")
        self._from_host += data
        self._news.set()
        if self._is_reading and len(self._from_host) >= ENOUGH_BYTES:
            self._is_reading = False
            asyncio.get_running_loop().remove_reader(channel)

    def _write(self) -> None:
        channel = self._channel
        if channel is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._to_host:
                del self._to_host[: channel.send(self._to_host)]
            loop.remove_writer(channel)
        except BlockingIOError:
            loop.add_writer(channel, self._write)
        except OSError:
            loop.remove_writer(channel)

    def end(self, why: str) -> None:
        """Close the stream, at which the host ends all that it started, and then itself; in the event loop."""
        if self._channel is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._channel)
            loop.remove_writer(self._channel)
            self._channel.close()
            self._channel = None
        self.why = self.why or why
        self.ended.set()
        self._news.set()

    def bury(self) -> None:
        """Wait for the end of the process; in the task's thread."""
        if self._process is not None:
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def pilot(pool: str, host: int, topic: str) -> str:
    """A Dask task that stands for a host, as long as that lives: Dask counts its thread as taken."""
    from distributed import get_worker  # noqa: PLC0415 - this file is loaded elsewhere, too

    worker = get_worker()
    relay = Relay(pool, worker.local_directory)
    relays[relay.token] = relay
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    worker.log_event(
        topic,
        {
            "host": host,
            "token": relay.token,
            "address": worker.address,
            "python": platform.python_version(),
            "machine": platform.node(),
            "missing": missing,
        },
    )
    while not relay.ended.wait(LOOK_SECONDS):
        if time.monotonic() - relay.heard_at > SILENCE_SECONDS:
            worker.loop.add_callback(relay.end, "the supervisor has not been heard of")
    relay.bury()
    relays.pop(relay.token, None)
    return relay.why


def has_source(token: str, digest: str) -> bool:
    """Tell whether jobpool's own code of that digest is here."""
    return os.path.isdir(relays[token].source(digest))


def install(token: str, digest: str, archive: bytes) -> None:
    """Unpack jobpool's own code."""
    if hashlib.sha256(archive).hexdigest() != digest:
        raise ValueError("the archive was changed on its way")
    place = relays[token].source(digest)
    temporary = tempfile.mkdtemp(dir=relays[token].folder)
    with zipfile.ZipFile(io.BytesIO(archive)) as whole:
        whole.extractall(temporary)
    try:
        os.rename(temporary, place)
    except OSError:  # somebody else was quicker
        shutil.rmtree(temporary, ignore_errors=True)


def start(token: str, digest: str) -> None:
    """Start the host process of a pilot."""
    relays[token].start(digest)


def put(token: str, at: int, data: bytes) -> int:
    """See ``Relay.put``."""
    return relays[token].put(at, data)


async def get(token: str, at: int, wait: float) -> "tuple[bytes, str]":
    """See ``Relay.get``."""
    return await relays[token].get(at, wait)


def end(token: str) -> None:
    """End a host, if there is one."""
    if token in relays:
        relays[token].end("it was given back")


async def end_all(pool: str) -> None:
    """End all hosts of a pool, those of a supervisor that is gone, and wait until nothing of them runs."""
    found = [relay for relay in relays.values() if relay.pool == pool]
    for relay in found:
        relay.end("the pool has another supervisor")
    deadline = time.monotonic() + END_SECONDS
    while any(relay.token in relays for relay in found) and time.monotonic() < deadline:  # noqa: ASYNC110 - of threads
        await asyncio.sleep(0.05)
