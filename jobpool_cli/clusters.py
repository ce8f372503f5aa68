"""Which engine is meant: this machine, a Dask cluster, or one that the config file names."""

from __future__ import annotations

import importlib.util
import json
import os
import reprlib
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobpool_cli.errors import MachineError, UsageError
from jobpool_cli.model import CLUSTER_KINDS, MAX_PROCESSES, Cluster, default_workers

LOCAL, DASK = "local", "dask"
# Where Dask's own programs, too, are told of a scheduler.
SCHEDULER_VARIABLE = "DASK_SCHEDULER_ADDRESS"
CENSUS = Path(__file__).parent / "engines" / "dask" / "census.py"
CENSUS_SECONDS = 60.0
# What a cluster's section of the config file may hold.
KEYS = ("scheduler", "kind", "options", "minimum")


def config_file() -> Path:
    """Where the config file is: ``JOBPOOL_CONFIG``, else the platform's folder for such files."""
    given = os.environ.get("JOBPOOL_CONFIG")
    if given:
        return Path(os.path.expanduser(given))
    import platformdirs  # noqa: PLC0415 - whoever runs on this machine does without

    return Path(platformdirs.user_config_dir("jobpool", appauthor=False)) / "config.toml"


def cluster_of(
    engine: str,
    *,
    scheduler: str | None = None,
    kind: str | None = None,
    options: Mapping[str, Any] | None = None,
    minimum: int | None = None,
) -> Cluster | None:
    """Return where tasks are to run; None for this machine.

    Args:
        engine: local, dask, or the name of a section ``[cluster.NAME]`` of the config file.
        scheduler: the address of a Dask scheduler.
        kind: a cluster to start.
        options: what is given to its class; what the config file has goes before it.
        minimum: workers at least, where they come and go with the work.

    Raises:
        UsageError: that makes no sense.
    """
    if engine == LOCAL:
        for option, value in (("scheduler", scheduler), ("cluster", kind), ("cluster-option", options)):
            if value:
                raise UsageError(f"--{option} is for the engine dask", f"write --engine {DASK}, too")
        if minimum is not None:
            raise UsageError("only a cluster's workers come and go with the work", "write a number: --workers N")
        return None
    named = {} if engine == DASK else _section(engine)
    if engine == DASK and not kind:
        named = {"scheduler": os.environ.get(SCHEDULER_VARIABLE)}
    return check_cluster(
        Cluster(
            scheduler=scheduler or named.get("scheduler"),
            kind=kind or named.get("kind"),
            options={**named.get("options", {}), **(options or {})},
            minimum=minimum if minimum is not None else named.get("minimum"),
        )
    )


def cluster_meant(engine: object) -> Cluster | None:
    """Return where tasks are to run that were mapped from Python; None for this machine.

    Args:
        engine: what ``cluster_of`` takes, the address of a Dask scheduler, a ``Cluster``, or Dask's own Client or
            cluster object.

    Raises:
        UsageError: it is none of these, or cannot be used.
    """
    if isinstance(engine, Cluster):
        return check_cluster(engine)
    if isinstance(engine, str):
        return check_cluster(Cluster(engine)) if "://" in engine else cluster_of(engine)
    # A Client knows its scheduler, a cluster object the address of its own.
    address = getattr(engine, "scheduler_address", None) or getattr(getattr(engine, "scheduler", None), "address", None)
    if not isinstance(address, str) or not address:
        raise UsageError(
            f"{reprlib.repr(engine)} is no engine",
            "local, dask, a name from the config file, a scheduler's address, a Client, or a jobpool_cli.Cluster",
        )
    return check_cluster(Cluster(address))


def check_cluster(found: Cluster) -> Cluster:
    """Return the cluster if it can be used.

    Raises:
        UsageError: what is said of it makes no sense, or something is not installed.
    """
    if found.kind is not None and found.kind not in CLUSTER_KINDS:
        raise UsageError(f"{found.kind!r} is no cluster that can be started", f"one of {', '.join(CLUSTER_KINDS)}")
    if (found.scheduler is None) == (found.kind is None):
        raise UsageError(
            "a cluster is either there, or is started" if found.kind else "the engine dask needs a cluster",
            f"--scheduler tcp://HOST:PORT of one that is there, or --cluster {'|'.join(CLUSTER_KINDS)} to start one",
        )
    if found.scheduler is not None and found.options:
        raise UsageError("options are for a cluster that is started, and --scheduler names one that is there")
    if found.scheduler is not None and found.scheduler.startswith("inproc://"):
        raise UsageError(
            f"{found.scheduler} is a scheduler inside of its process, and nobody else reaches it",
            "start it with processes=True: LocalCluster(processes=True)",
        )
    if found.scheduler is not None and found.minimum is not None:
        raise UsageError("a cluster that is there has the workers that it has", "write a number: --workers N")
    _check_installed(found.kind)
    return found


def workers_of(cluster: Cluster | None) -> int:
    """Return how many workers a pool has if nobody says: a core each, of this machine or of a cluster that is there.

    Raises:
        UsageError: a batch system is to start them, which has no such number.
        MachineError: the cluster does not answer.
    """
    if cluster is None or cluster.kind == "local":
        return default_workers()
    if cluster.kind is not None:
        raise UsageError(f"how many workers shall {cluster.kind} start?", "write --workers N, or --workers MIN:MAX")
    # In a process of its own: the Dask client would take this one a second to import.
    asked = subprocess.run(
        [sys.executable, "-P", str(CENSUS), str(cluster.scheduler)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CENSUS_SECONDS,
        check=False,
    )
    if asked.returncode:
        said = asked.stderr.strip().splitlines()
        raise MachineError(
            f"{cluster.scheduler} does not answer as a Dask scheduler: {said[-1] if said else asked.returncode}",
            "see whether it runs, and can be reached from here",
        )
    return min(int(asked.stdout), MAX_PROCESSES) or default_workers()


def parsed_options(given: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` as a cluster's class takes it: what is JSON as that, all else as text.

    Raises:
        UsageError: one is not of that form.
    """
    found: dict[str, Any] = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--cluster-option {each!r} does not say what is what", "write key=value: memory=4GB")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _section(name: str) -> dict[str, Any]:
    path = config_file()
    try:
        with path.open("rb") as file:
            sections = tomllib.load(file).get("cluster", {})
    except FileNotFoundError:
        sections = {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    section = sections.get(name) if isinstance(sections, dict) else None
    if not isinstance(section, dict):
        known = ", ".join([LOCAL, DASK, *sections])
        raise UsageError(f"there is no engine {name}", f"one of {known}; others are named in {path}: [cluster.{name}]")
    for key, value in section.items():
        kinds = {"options": dict, "minimum": int}
        if key not in KEYS or not isinstance(value, kinds.get(key, str)):
            raise UsageError(
                f"{path}: {key} = {value!r} in [cluster.{name}] makes no sense", f"keys: {', '.join(KEYS)}"
            )
    return section


def _check_installed(kind: str | None) -> None:
    needed = ["distributed"] if kind in {None, "local"} else ["distributed", "dask_jobqueue"]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the Dask engine needs {' and '.join(missing)}, which this Python does not have",
            "pip install 'jobpool-cli[dask]'",
        )
