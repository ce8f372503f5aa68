"""Ray on this machine: remote tasks, or the stand-in for multiprocessing.Pool that comes with it."""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import os
import secrets
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Figures
from benchmarks.peers import Job, main, warm

NAME = "Ray"
KEEPS = "logs of its own servers and workers, among them what tasks printed, not told apart by task"
FORGETS = "states, times, results and errors when the script ends: they live in its servers and in shared memory"
PACKAGE = "ray"
VARIANTS = {"": "one task each", "api=pool": "its Pool, chunks"}

CLONE_NEWUTS, CLONE_NEWUSER, CLONE_NEWNET = 0x04000000, 0x10000000, 0x40000000
SET_INTERFACE_FLAGS = 0x8914
UP_AND_RUNNING = 0x1 | 0x40


def own_network() -> str:
    """Move this process into a network of its own, that has the loopback interface only; return why, if it cannot.

    HyperQueue and Ray listen on every interface of the machine, and have no option that says otherwise. To be called
    before the first thread starts. It costs next to nothing.
    """
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUTS | CLONE_NEWNET) != 0:
        # Who may not have a network of his own may still have one together with a user namespace of his own.
        if libc.unshare(CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWUSER) != 0:
            reason = os.strerror(ctypes.get_errno())
            return f"it listens on every interface, and this machine gives no network namespace: {reason}"
        for name, text in [("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")]:
            Path("/proc/self", name).write_text(text, encoding="ascii")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SET_INTERFACE_FLAGS, struct.pack("16sh14x", b"lo", UP_AND_RUNNING))
    # Its worker and client look for the server under the machine's name, which need not mean the loopback interface.
    socket.sethostname("localhost")
    return ""


@contextmanager
def short_name(folder: Path) -> Iterator[Path]:
    """Give a folder a short name as well: Ray's sockets lie deep in it, and a socket's path has 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ray") as place:
        name = Path(place, "s")
        name.symlink_to(folder, target_is_directory=True)
        yield name


def run(job: Job) -> Figures:
    """Submit a remote task for each argument, and get all results in one call.

    As ``api=pool``: by `ray.util.multiprocessing.Pool`, whose map makes chunks, as Ray's documentation advises for
    many small tasks; then only chunks are known to Ray.
    """
    arguments = job.arguments
    # Ray's authentication stays on, with a token for this run only; it would make one in the user's home.
    token = job.folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(), encoding="ascii")
    os.environ |= {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    # Only now: it starts threads, and reads its environment.
    ray = importlib.import_module("ray")
    ray_pool = importlib.import_module("ray.util.multiprocessing")
    with short_name(job.folder) as place:
        begun = time.perf_counter()
        ray.init(num_cpus=job.workers, include_dashboard=False, _temp_dir=str(place))
        try:
            if job.variant.get("api") == "pool":
                with ray_pool.Pool(job.workers) as pool:
                    pool.map(warm, job.warm_arguments)
                    warmed = time.perf_counter()
                    results = pool.map(job.function, arguments)
            else:
                remote_warm, remote_function = ray.remote(warm), ray.remote(job.function)
                ray.get([remote_warm.remote(module) for module in job.warm_arguments])
                warmed = time.perf_counter()
                results = ray.get([remote_function.remote(argument) for argument in arguments])
            ended = time.perf_counter()
        finally:
            ray.shutdown()
    job.check(results)
    return {"seconds": ended - begun, "map_seconds": ended - warmed}


if __name__ == "__main__":
    main(run, refuse=own_network)
