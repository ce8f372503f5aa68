"""Pools on a Dask cluster, as a user meets them: the same commands, and the same answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from jobpool_cli.errors import InputError
from jobpool_cli.model import Cluster, PoolOptions, PoolState, TaskState
from jobpool_cli.pool import JobPool
from tests.conftest import Run
from tests.engines.cluster import DaskCluster, dask_cluster
from tests.engines.slurm import jobs, missing, slurm, slurm_cluster
from tests.helpers import Bench, check_invariants, marked, square, until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Two workers, for all tests that leave them as they were."""
    with dask_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[DaskCluster]:
    """A scheduler without a worker, for one test."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with dask_cluster(folder, workers=0) as running:
        yield running


def on(cluster: DaskCluster, workers: int = 2) -> PoolOptions:
    return PoolOptions(workers=workers, cluster=Cluster(cluster.address))


def _more_than(bench: Bench, starts: int) -> bool:
    return len(bench.pids()) > starts


def shown(run: Run, *words: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in run(*words, "--json", code=0).stdout.splitlines()]


def test_every_command_says_of_a_pool_on_dask_what_it_says_of_one_here(
    run: Run, udf_file: Callable[..., Path], args_file: Callable[..., Path], cluster: DaskCluster
) -> None:
    udf = udf_file(
        "def half(x: int) -> float:\n    print('halving', x)\n    assert x != 3, 'not three'\n    return x / 2\n"
    )
    rows = args_file("x\n" + "".join(f"{x}\n" for x in range(10)))
    away = ("--engine", "dask", "--scheduler", cluster.address)
    assert "2 workers of the Dask cluster at" in run("map", udf, rows, *away, "--dry-run", code=0).stdout
    done = run("map", udf, rows, "--name", "away", "--wait", *away)
    assert done.returncode == 1
    run("map", udf, rows, "--name", "here", "--wait", "-j", "2")
    for verb in ("status", "errors", "results", "tasks", "logs"):
        texts = [run(verb, pool) for pool in ("away", "here")]
        assert texts[0].returncode == texts[1].returncode
    (failure,) = shown(run, "errors", "away", "--list")
    assert (failure["task"], failure["type"], failure["message"]) == (3, "AssertionError", "not three")
    assert "halving 7\n" in run("logs", "away", "7", code=0).stdout
    for pool in ("away", "here"):
        run("collect", pool, "--ignore-exceptions", "-o", f"{pool}.csv", code=0)
    assert (rows.parent / "away.csv").read_bytes() == (rows.parent / "here.csv").read_bytes()


def test_a_cluster_from_the_config_file_is_an_engine_of_that_name(
    run: Run, udf_file: Callable[..., Path], args_file: Callable[..., Path], cluster: DaskCluster, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[cluster.mine]\nscheduler = "{cluster.address}"\n')
    udf, rows = udf_file("def f(x: int) -> int:\n    return x * x\n"), args_file("x\n1\n2\n")
    pool = run(
        "map", udf, rows, "--engine", "mine", "--wait", env={"JOBPOOL_CONFIG": str(config)}, code=0
    ).stdout.strip()
    assert [json.loads(line)["result"] for line in run("results", pool, "--json", code=0).stdout.splitlines()] == [1, 4]
    refused = run("map", udf, rows, "--engine", "yours", env={"JOBPOOL_CONFIG": str(config)}, code=2)
    assert "there is no engine yours" in refused.stderr
    assert "mine" in refused.stderr


def test_a_scheduler_that_is_not_there_is_told_at_map_and_nothing_is_left(
    run: Run, udf_file: Callable[..., Path], args_file: Callable[..., Path], home: Path
) -> None:
    udf, rows = udf_file("def f(x: int) -> int:\n    return x\n"), args_file("x\n1\n")
    away = ("--engine", "dask", "--scheduler", "tcp://127.0.0.1:9")
    for workers in ((), ("-j", "2")):
        refused = run("map", udf, rows, *away, *workers)
        assert refused.returncode != 0
        assert "tcp://127.0.0.1:9" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not (home / "pools").exists() or os.listdir(home / "pools") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "dask"], "needs a cluster"),
        (["--scheduler", "tcp://127.0.0.1:1"], "is for the engine dask"),
        (["--engine", "dask", "--cluster", "nomad"], "no cluster that can be started"),
        (["--engine", "dask", "--cluster", "slurm"], "how many workers"),
        (["--engine", "dask", "--cluster", "slurm", "-j", "3:1"], "not a number of workers"),
        (["--engine", "dask", "--cluster", "slurm", "-j", "1", "--cluster-option", "cores"], "what is what"),
        (["--engine", "dask", "--cluster", "local", "--scheduler", "tcp://127.0.0.1:1"], "either there, or is started"),
        (["-j", "1:2"], "a cluster's workers"),
    ],
)
def test_options_that_make_no_sense_are_told_before_anything_is_tried(
    run: Run, udf_file: Callable[..., Path], args_file: Callable[..., Path], words: list[str], said: str
) -> None:
    udf, rows = udf_file("def f(x: int) -> int:\n    return x\n"), args_file("x\n1\n")
    assert said in run("map", udf, rows, *words, code=2).stderr


@pytest.mark.parametrize("form", ["address", "client", "cluster"])
def test_python_takes_an_address_a_client_or_a_cluster(
    run: Run, command_line: tuple[list[str], dict[str, str]], tmp_path: Path, cluster: DaskCluster, form: str
) -> None:
    forms = {
        "address": f"pool = f.map(range(5), engine={cluster.address!r}, name='p', wait=True)",
        "client": f"with Client({cluster.address!r}) as client:\n"
        "        pool = f.map(range(5), engine=client, name='p', wait=True)",
        "cluster": "with LocalCluster(n_workers=1, dashboard_address=None) as cluster:\n"
        "        pool = f.map(range(5), engine=cluster, max_workers=1, name='p', wait=True)",
    }
    script = tmp_path / "script.py"
    script.write_text(
        "from distributed import Client, LocalCluster\nfrom jobpool_cli import udf\n"
        "@udf\ndef f(x: int) -> int:\n    return x + 1\n"
        f"if __name__ == '__main__':\n    {forms[form]}\n    print(pool.results())\n"
    )
    done = subprocess.run(
        [sys.executable, script], env=command_line[1], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[1, 2, 3, 4, 5]\n"
    (status,) = shown(run, "status", "p")
    assert status["state"] == "done"


def test_processes_of_a_worker_run_side_by_side_in_one_dask_worker(bench: Bench, empty: DaskCluster) -> None:
    empty.add_worker()
    body = (
        "def f(x: int):\n    _audit()\n    _audit('began')\n"
        "    while len(open(os.path.join(FOLDER, 'began')).readlines()) < 3:\n        time.sleep(0.01)\n"
        "    return x * x\n"
    )
    options = on(empty, workers=1)._replace(processes_per_worker=3)
    pool = bench.map(body, 3, options=options)
    assert pool.follow(60).counts[TaskState.SUCCESS] == 3
    assert len(set(bench.pids())) == 3
    check_invariants(pool, square)


def test_time_limits_hold_on_a_cluster_with_all_that_a_task_started(bench: Bench, cluster: DaskCluster) -> None:
    body = (
        "def f(x: int):\n    _audit()\n"
        "    if x == 2:\n        subprocess.Popen(['sleep', '600'], start_new_session=True)\n        time.sleep(600)\n"
        "    return x * x\n"
    )
    pool = bench.map(body, 6, options=on(cluster)._replace(timeout=0.5, grace=0.2))
    status = pool.follow(60)
    assert (status.counts[TaskState.SUCCESS], status.counts[TaskState.TIMEOUT]) == (5, 1)
    check_invariants(pool, square)


def test_cancel_and_pause_and_resume_reach_the_cluster(bench: Bench, cluster: DaskCluster) -> None:
    body = "def f(x: int):\n    _audit()\n    _wait_for('go') if x >= 4 else None\n    return x * x\n"
    pool = bench.map(body, 40, options=on(cluster))
    until(lambda: pool.snapshot().counts[TaskState.SUCCESS] >= 4 and len(pool.running_tasks()) == 2)
    pool.pause()
    until(lambda: pool.snapshot().state is PoolState.PAUSED)
    pool.resume()
    pool.cancel(running=True)
    status = pool.follow(60)
    assert status.state is PoolState.DONE
    assert status.counts[TaskState.CANCELLED] == 40 - status.counts[TaskState.SUCCESS]
    check_invariants(pool, square)


def test_a_pool_waits_for_workers_and_map_does_not(bench: Bench, empty: DaskCluster) -> None:
    pool = bench.map("def f(x: int):\n    return x * x\n", 20, options=on(empty))
    assert pool.snapshot().counts[TaskState.PENDING] == 20
    empty.add_worker()
    assert pool.follow(60).counts[TaskState.SUCCESS] == 20
    check_invariants(pool, square)


NO_PANDAS = """
import importlib.util as util
real = util.find_spec
util.find_spec = lambda name, *package: None if name == "pandas" else real(name, *package)
"""
ANOTHER_PYTHON = """
import platform
platform.python_version = lambda: "3.9.18"
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [(NO_PANDAS, "lacks pandas"), (ANOTHER_PYTHON, "runs Python 3.9.18")],
    ids=["without-pandas", "another-python"],
)
def test_a_worker_that_cannot_run_the_tasks_is_told_at_map(
    bench: Bench, empty: DaskCluster, tmp_path: Path, code: str, said: str
) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "sitecustomize.py").write_text(code)
    empty.add_worker(env={"PYTHONPATH": str(strange)})
    until(lambda: "Registered to" in empty.log(), what="the worker is there")
    with pytest.raises(InputError, match=said):
        bench.map("def f(x: int):\n    return x * x\n", 20, options=on(empty))


def test_a_worker_whose_dask_worker_dies_is_none_of_its_neighbours_business(bench: Bench, empty: DaskCluster) -> None:
    body = "def f(x: int):\n    _audit()\n    _wait_for('go') if x < 2 else None\n    return x * x\n"
    victim = empty.add_worker()
    pool = bench.map(body, 2, options=on(empty, workers=1)._replace(max_crashes=6))
    # Dask gives up a task whose worker died three times (KilledWorker), and the pool does not.
    for deaths in range(5):
        until(partial(_more_than, bench, deaths), what="a task runs")
        fresh = empty.add_worker()
        os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
        victim = fresh
    bench.release("go")
    status = pool.follow(90)
    assert status.counts[TaskState.SUCCESS] == 2, status
    check_invariants(pool, square)
    assert set(bench.audit().values()) == {1}


def test_a_pool_starts_jobs_of_slurm_and_ends_them(
    run: Run, udf_file: Callable[..., Path], args_file: Callable[..., Path], tmp_path: Path, home: Path
) -> None:
    if missing():
        pytest.skip(f"not installed: {', '.join(missing())} (Debian: slurm-wlm, munge)")
    udf = udf_file("import os\ndef f(x: int) -> str:\n    return os.environ['SLURM_JOB_ID']\n")
    rows = args_file("x\n" + "".join(f"{x}\n" for x in range(30)))
    folder = tmp_path / "slurm"
    folder.mkdir()
    with slurm(folder) as variables:
        options = [
            word
            for key, value in slurm_cluster(folder).options.items()
            for word in ("--cluster-option", f"{key}={value if isinstance(value, str) else json.dumps(value)}")
        ]
        words = ("--engine", "dask", "--cluster", "slurm", "-j", "1:2", *options)
        name = run("map", udf, rows, *words, env=variables, code=0).stdout.strip()
        run("wait", name, code=0)
        pool: JobPool[str] = JobPool(home / "pools" / name)
        assert set(pool.results()) <= {"1", "2"}
        until(lambda: not pool.is_live() and not marked(pool))
        until(lambda: not jobs(variables), what="its jobs are gone")
