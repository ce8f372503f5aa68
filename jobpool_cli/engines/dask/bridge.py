"""The bridge: a process with the Dask client, between the supervisor, which knows nothing of Dask, and the hosts.

Its command line is private to ``carrier``. It ends when its channel does, and gives back all that it had.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import logging
import platform
import socket
import sys
import traceback
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobpool_cli.worker.protocol import Frame, FrameReader, frame_bytes

# How long one question for news may stay open; the relay takes a bridge that asks for none for dead.
WAIT_SECONDS = 10.0
# Dask's scheduler keeps 512 connections at a time: with more hosts than these, they are asked in turn.
QUESTIONS = 256
CROWDED_WAIT_SECONDS = 0.5
TRIES = 3
PAUSE_SECONDS = 1.0
CONNECT_SECONDS = 10.0
# A scheduler that does not answer for so long is gone.
GONE_SECONDS = 15.0
PUT_BYTES = 4 << 20
READ_BYTES = 1 << 20


# Finds the relay in a Dask worker, or makes it there: one of a kind, whoever is first.
BOOT = """
import sys, types
relay = sys.modules.get(name)
if relay is None:
    made = types.ModuleType(name)
    exec(compile(text, "jobpool's relay", "exec"), made.__dict__)
    relay = sys.modules.setdefault(name, made)
"""
# A Dask task by name and text alone: a worker with another Python could not even load a function of this one's.
PILOT = "exec(boot, space) or space['relay'].pilot(*given)"


async def in_relay(boot: str, name: str, text: str | None, function: str, *given: Any) -> Any:
    """Call a function of ``relay`` in a Dask worker, which may have to be told what that is."""
    import inspect  # noqa: PLC0415 - what this needs travels with it
    import sys  # noqa: PLC0415

    if text is None and name not in sys.modules:
        return "unknown", None
    space = {"name": name, "text": text}
    exec(boot, space)  # noqa: S102 - that text is ours
    answer = getattr(space["relay"], function)(*given)
    return "done", await answer if inspect.isawaitable(answer) else answer


@dataclass
class _Host:
    """A host that was asked for."""

    number: int
    future: Any
    token: str = ""
    address: str = ""
    to_send: bytearray = field(default_factory=bytearray)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    work: list[asyncio.Task[None]] = field(default_factory=list)


class Bridge:
    """The client's side of all hosts."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to the supervisor over a stream."""
        self._reader, self._writer = reader, writer
        self._hosts: dict[int, _Host] = {}
        self._generation = 0
        self._client: Any = None
        self._cluster: Any = None
        self._pool = ""
        self._topic = ""
        self._relay = Path(__file__).with_name("relay.py").read_text(encoding="utf-8")
        self._relay_name = f"jobpool_relay_{hashlib.sha256(self._relay.encode()).hexdigest()}"
        self._archive = _archive()
        self._digest = hashlib.sha256(self._archive).hexdigest()
        self._tasks: set[asyncio.Task[None]] = set()
        self._questions = asyncio.Semaphore(QUESTIONS)

    # --- the supervisor

    async def run(self) -> None:
        """Serve the supervisor to its end."""
        frames = FrameReader()
        try:
            while data := await self._reader.read(READ_BYTES):
                for frame in frames.take(data):
                    await self._do(frame)
        finally:
            await self._close()

    async def _do(self, frame: Frame) -> None:
        body = frame.body
        match frame.kind:
            case "connect":
                self._later(self._connect(body["asked"]))
            case "open":
                self._open(body["host"])
            case "data":
                host = self._hosts.get(body["host"])
                if host is not None:
                    host.to_send += frame.payload
                    host.more.set()
            case "end":
                host = self._hosts.get(body["host"])
                if host is not None:
                    await self._lose(host, "it was given back")

    async def _tell(self, kind: str, body: dict[str, Any], payload: bytes = b"") -> None:
        self._writer.write(frame_bytes(kind, body, payload) + payload)
        # Where the supervisor has no room, hosts wait.
        await self._writer.drain()

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # A fault of this program's: without an end to the stream the supervisor would wait for ever.
            traceback.print_exception(error)
            self._writer.close()

    # --- the cluster

    async def _connect(self, body: dict[str, Any]) -> None:
        try:
            from distributed import Client  # noqa: PLC0415 - an extra

            from jobpool_cli.engines.dask.clusters import make_cluster  # noqa: PLC0415

            self._pool, self._topic = body["pool"], f"jobpool-{body['pool']}"
            self._cluster = await make_cluster(body)
            self._client = await Client(
                self._cluster or body["scheduler"],
                asynchronous=True,
                set_as_default=False,
                timeout=CONNECT_SECONDS,
                name="jobpool",
            )
        except ImportError as error:
            await self._refuse(f"the Dask engine needs {error.name}", "pip install 'jobpool-cli[dask]'")
        except Exception as error:  # noqa: BLE001 - a cluster is made of others' code
            where = body["scheduler"] or f"a cluster of {body['kind']}"
            await self._refuse(f"{where} cannot be used: {type(error).__name__}: {error}", "")
        else:
            self._client.subscribe_topic(self._topic, self._arrived)
            workers = (await self._client.get_versions())["workers"]
            # What an earlier supervisor left is ended before anything begins.
            alike = [address for address, each in workers.items() if _is_ours(each["host"]["python"])]
            with contextlib.suppress(Exception):
                await self._client.run(
                    in_relay, BOOT, self._relay_name, None, "end_all", self._pool, workers=alike, on_error="ignore"
                )
            await self._tell("connected", {"workers": len(workers)})
            for host in self._hosts.values():
                self._submit(host)
            self._later(self._watch())

    async def _workers(self) -> list[str]:
        """Return the addresses of the Dask workers that there are."""
        return list(await self._client.scheduler.ncores())

    async def _refuse(self, message: str, hint: str) -> None:
        await self._tell("gone", {"why": message, "hint": hint, "refusal": True})

    async def _watch(self) -> None:
        """Notice that the scheduler is gone."""
        missed = 0.0
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                if self._client.status == "running":
                    await asyncio.wait_for(self._client.scheduler.identity(n_workers=0), GONE_SECONDS)
                    missed = 0.0
                    continue
            except Exception:  # noqa: BLE001 - whatever it is, there was no answer
                missed += PAUSE_SECONDS
            missed += PAUSE_SECONDS
            if missed > GONE_SECONDS / 3:
                await self._tell("gone", {"why": "the Dask scheduler is gone", "hint": "", "refusal": False})
                return

    def _open(self, number: int) -> None:
        host = self._hosts[number] = _Host(number, None)
        if self._client is not None:
            self._submit(host)

    def _submit(self, host: _Host) -> None:
        self._generation += 1
        host.future = self._client.submit(
            eval,
            PILOT,
            {
                "boot": BOOT,
                "space": {"name": self._relay_name, "text": self._relay},
                "given": [self._pool, host.number, self._topic],
            },
            key=f"jobpool-{self._pool}-{host.number}-{self._generation}",
            pure=False,
        )  # fmt: skip
        host.work.append(asyncio.get_running_loop().create_task(self._mind(host)))

    async def _mind(self, host: _Host) -> None:
        """Notice the end of a host's task that is not told otherwise."""
        from distributed import wait  # noqa: PLC0415 - an extra

        await wait(host.future)
        why = await self._reason(host.future)
        if host.token:
            # What it told last is on its way.
            await asyncio.sleep(PAUSE_SECONDS)
        self._later(self._lose(host, why))

    async def _reason(self, future: Any) -> str:
        try:
            return str(await future)
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__}: {error}".splitlines()[0]

    def _arrived(self, event: tuple[Any, dict[str, Any]]) -> None:
        """Take in that a pilot has begun."""
        self._later(self._start(event[1]))

    async def _start(self, said: dict[str, Any]) -> None:
        host = self._hosts.get(said["host"])
        if host is None or host.future is None:
            with contextlib.suppress(Exception):
                await self._call(said["address"], "end", said["token"])
            return
        if host.token:
            # Dask has begun its task again elsewhere: whatever ran before is gone.
            await self._lose(host, "its Dask worker is gone")
            with contextlib.suppress(Exception):
                await self._call(said["address"], "end", said["token"])
            return
        wrong = _mismatch(said)
        if wrong:
            await self._refuse(*wrong)
            return
        host.token, host.address = said["token"], said["address"]
        try:
            if not await self._call(host.address, "has_source", host.token, self._digest):
                await self._call(host.address, "install", host.token, self._digest, self._archive)
            await self._call(host.address, "start", host.token, self._digest)
        except Exception as error:  # noqa: BLE001
            await self._lose(host, f"its host process could not be started: {type(error).__name__}: {error}")
            return
        await self._tell("up", {"host": host.number, "where": said["machine"]})
        loop = asyncio.get_running_loop()
        host.work += [loop.create_task(self._put_all(host)), loop.create_task(self._get_all(host))]

    async def _call(self, address: str, name: str, *given: Any) -> Any:
        """Call a function of the relay in a Dask worker's event loop."""
        for text in (None, self._relay):
            answers = await self._client.run(in_relay, BOOT, self._relay_name, text, name, *given, workers=[address])
            state, answer = answers[address]
            if state == "done":
                return answer
        raise RuntimeError("the relay cannot be installed")

    async def _asked(self, host: _Host, name: str, *given: Any) -> Any:
        """The same, with patience: what is lost on the way is asked again, unless the Dask worker is gone."""
        for turn in range(TRIES):
            try:
                return await self._call(host.address, name, host.token, *given)
            except KeyError:
                raise
            except Exception:
                if turn + 1 == TRIES or host.address not in await self._workers():
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
        return None

    async def _put_all(self, host: _Host) -> None:
        at = 0
        try:
            while True:
                await host.more.wait()
                host.more.clear()
                while host.to_send:
                    data = bytes(host.to_send[:PUT_BYTES])
                    at = await self._asked(host, "put", at, data)
                    del host.to_send[: len(data)]
        except Exception as error:  # noqa: BLE001 - whatever keeps bytes from it
            self._later(self._lose(host, f"its Dask worker is gone ({type(error).__name__})"))

    async def _get_all(self, host: _Host) -> None:
        at = 0
        try:
            while True:
                async with self._questions:
                    wait = WAIT_SECONDS if len(self._hosts) <= QUESTIONS else CROWDED_WAIT_SECONDS
                    data, why = await self._asked(host, "get", at, wait)
                if data:
                    at += len(data)
                    await self._tell("data", {"host": host.number}, data)
                elif why:
                    self._later(self._lose(host, why))
                    return
        except Exception as error:  # noqa: BLE001
            self._later(self._lose(host, f"its Dask worker is gone ({type(error).__name__})"))

    async def _lose(self, host: _Host, why: str) -> None:
        if self._hosts.get(host.number) is not host:
            return
        del self._hosts[host.number]
        for task in host.work:
            task.cancel()
        if host.token:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._call(host.address, "end", host.token), PAUSE_SECONDS)
        if host.future is not None:
            with contextlib.suppress(Exception):
                await host.future.cancel()
        await self._tell("down", {"host": host.number, "why": why})

    async def _close(self) -> None:
        with contextlib.suppress(Exception):
            for host in list(self._hosts.values()):
                for task in host.work:
                    task.cancel()
                if host.token:
                    await asyncio.wait_for(self._call(host.address, "end", host.token), GONE_SECONDS)
        with contextlib.suppress(Exception):
            if self._client is not None:
                await self._client.close()
        with contextlib.suppress(Exception):
            if self._cluster is not None:
                await self._cluster.close()


def _mismatch(said: dict[str, Any]) -> tuple[str, str] | None:
    """Return what keeps a Dask worker from running the pool's tasks, and what to do."""
    if not _is_ours(said["python"]):
        ours = platform.python_version()
        return (
            f"the Dask worker on {said['machine']} runs Python {said['python']}, and jobpool here {ours}",
            "start the workers with the same Python as jobpool: code and results travel between them",
        )
    if said["missing"]:
        return (
            f"the Dask worker on {said['machine']} lacks {', '.join(said['missing'])}",
            f"install there: pip install {' '.join(said['missing'])}",
        )
    return None


def _is_ours(version: str) -> bool:
    """Return whether code and results can travel between that Python and this one."""
    return version.split(".")[:2] == platform.python_version().split(".")[:2]


def _archive() -> bytes:
    """Return jobpool's own code as a zip file, the same for the same code."""
    package = Path(__file__).resolve().parents[2]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as whole:
        for path in sorted(package.rglob("*")):
            if path.suffix in {".py", ".sql"}:
                entry = zipfile.ZipInfo(str(path.relative_to(package.parent)))
                entry.compress_type = zipfile.ZIP_DEFLATED
                whole.writestr(entry, path.read_bytes())
    return buffer.getvalue()


async def serve(channel: socket.socket) -> None:
    """Be the bridge of one supervisor."""
    reader, writer = await asyncio.open_connection(sock=channel)
    await Bridge(reader, writer).run()


if __name__ == "__main__":
    given = dict(each.removeprefix("--").split("=", 1) for each in sys.argv[1:])
    for each in ("distributed", "dask_jobqueue", "tornado", "asyncio"):
        logging.getLogger(each).setLevel(logging.CRITICAL)
    asyncio.run(serve(socket.socket(fileno=int(given["channel"]))))
