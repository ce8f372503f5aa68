"""Functions that take their worker down with them: they pay for it, and nobody else."""

from __future__ import annotations

import pytest

from jobpool_cli.model import TaskState
from tests.faults import ledger
from tests.faults.harness import Faults
from tests.faults.injection import alive
from tests.faults.one_bad import BAD, TASKS, check_all_succeeded, check_the_bad_one_failed, hostile, several

# Frames of jobpool's own have no place in what a user is shown.
OURS = "jobpool_cli"


@pytest.mark.scenario(31)
@pytest.mark.parametrize("settled", [True, False], ids=["later", "at-once"])
def test_a_segmentation_fault_fails_its_task_after_three_crashes_and_shows_where(
    faults: Faults, *, settled: bool
) -> None:
    """Scenario 31: SIGSEGV through ctypes; the message names the signal, ``errors --task`` shows the trace."""
    pool = faults.map(hostile("ctypes.string_at(0)", settled=settled), 100)
    faults.injected(3)
    failure = check_the_bad_one_failed(faults, pool, "WorkerCrashed", attempts=3, once=settled)
    assert "killed by signal 11 (SIGSEGV)" in failure.message
    assert failure.where is not None
    assert failure.where.file.endswith("pool_job.py")
    assert failure.where.function == "f"
    shown = faults.jobpool("errors", pool.name, "--task", str(BAD)).stdout
    assert "Fatal Python error: Segmentation fault" in shown
    assert "pool_job.py" in shown
    assert "in f" in shown
    assert OURS not in shown
    log = faults.jobpool("logs", pool.name, str(BAD)).stdout
    assert "Fatal Python error: Segmentation fault" in log
    assert [each.attempt for each in pool.failures(history=True)] == [1, 2, 3]


@pytest.mark.scenario(31)
def test_a_crash_in_a_thread_of_the_functions_own_shows_that_thread(faults: Faults) -> None:
    """Scenario 31: SIGSEGV in another thread than the task's; the trace is that thread's."""
    deed = "thread = threading.Thread(target=_crash)\nthread.start()\nthread.join()"
    body = hostile(deed, top="import threading\ndef _crash():\n    ctypes.string_at(0)\n", settled=True)
    pool = faults.map(body, 100, "--max-crashes", "1")
    faults.injected()
    failure = check_the_bad_one_failed(faults, pool, "WorkerCrashed")
    assert failure.where is not None
    assert failure.where.function == "_crash"


@pytest.mark.scenario(32)
@pytest.mark.parametrize(("deed", "said"), [("os._exit(0)", "exited with code 0"), ("os._exit(3)", "with code 3")])
def test_a_task_that_exits_its_process_is_a_crash_and_what_ended_before_it_is_not_run_again(
    faults: Faults, deed: str, said: str
) -> None:
    """Scenario 32: ``os._exit`` in a task, at once: a crash that says so, three times; no hang."""
    pool = faults.map(hostile(deed), 100)
    faults.injected(3)
    failure = check_the_bad_one_failed(faults, pool, "WorkerCrashed", attempts=3)
    assert failure.message.endswith(f"during the task: {said}" if said[0] == "e" else said)


@pytest.mark.scenario(32)
def test_a_task_that_exits_its_process_from_a_thread_or_while_its_result_is_stored_does_not_hang(
    faults: Faults,
) -> None:
    """Scenario 32: ``os._exit`` from another thread, and from a result's ``__reduce__``."""
    top = "import threading\nclass Leaves:\n    def __reduce__(self):\n        os._exit(0)\n"
    deed = "thread = threading.Thread(target=os._exit, args=[0])\nthread.start()\nthread.join()"
    pool = faults.map(hostile(deed, top=top), 100, "--max-crashes", "1")
    check_the_bad_one_failed(faults, pool, "WorkerCrashed")
    other = faults.map(hostile("return Leaves()", top=top), 100, "--max-crashes", "1", name="other")
    faults.injected(2)
    faults.ended(other)
    (failure,) = other.failures()
    assert (failure.task, failure.type) == (BAD, "WorkerCrashed")
    assert other.snapshot().counts[TaskState.SUCCESS] == 99
    faults.check(other)


GUARDS = {
    "ignored": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))",
    "handled": "signal.signal(signal.SIGTERM, lambda *_: None)",
}


@pytest.mark.scenario(34)
@pytest.mark.parametrize("guard", ledger.scaled(["ignored"], list(GUARDS)))
def test_a_c_loop_that_ignores_sigterm_is_killed_and_its_log_says_where_it_was(faults: Faults, guard: str) -> None:
    """Scenario 34: a loop in C that SIGTERM does not end: killed after the grace period, traceback in its log."""
    loop = "while True:\n    ctypes.CDLL(None).pause()"
    pool = faults.map(hostile(f"{GUARDS[guard]}\n{loop}", settled=True), 100, "--timeout", "1")
    faults.injected()
    failure = check_the_bad_one_failed(faults, pool, "TaskTimeout", state="timeout")
    assert failure.duration is not None
    assert 1.0 <= failure.duration < 20
    log = faults.jobpool("logs", pool.name, str(BAD)).stdout
    assert "(most recent call first)" in log
    assert "pool_job.py" in log
    assert failure.where is not None
    assert failure.where.file.endswith("pool_job.py")
    assert not [pid for pid in faults.pids() if alive(pid)]


@pytest.mark.scenario(34)
def test_a_pure_c_computation_that_never_returns_to_python_is_killed_with_its_traceback(faults: Faults) -> None:
    """Scenario 34: one call of C code that holds the interpreter's lock and never comes back."""
    body = hostile("re.match(r'(a|a)*b', 'a' * 60)", top="import re", settled=True)
    pool = faults.map(body, 100, "--timeout", "1")
    faults.injected()
    failure = check_the_bad_one_failed(faults, pool, "TaskTimeout", state="timeout")
    assert "Most recent call first" in str(failure.traceback)
    assert failure.where is not None
    assert failure.where.function == "f"


HOGS = {
    "2-GB-at-once": "hog = bytearray(os.urandom(1 << 20) * 2000)\ntime.sleep(30)",
    "slowly": "hog = []\nwhile True:\n    hog.append(bytearray(os.urandom(1 << 20) * 20))\n    time.sleep(0.01)",
    "in-a-child": "child = 'import os, time; hog = bytearray(os.urandom(1 << 20) * 1500); time.sleep(30)'\n"
    "subprocess.run([sys.executable, '-c', child])",
}


@pytest.mark.scenario(35)
@pytest.mark.parametrize("name", ledger.scaled(["2-GB-at-once", "in-a-child"], list(HOGS)))
def test_a_task_past_the_memory_limit_is_stopped_and_the_supervisor_lives(faults: Faults, name: str) -> None:
    """Scenario 35: more memory than ``--memory-limit``, fast, slowly, in a child: MemoryLimitExceeded."""
    pool = faults.map(hostile(HOGS[name], settled=True), 100, "--memory-limit", "600M")
    faults.injected()
    failure = check_the_bad_one_failed(faults, pool, "MemoryLimitExceeded")
    assert f"the memory limit of {600 << 20} bytes" in failure.message
    assert pool.snapshot().reason == ""


@pytest.mark.scenario(35)
def test_where_memory_runs_out_the_kernel_takes_a_worker_before_the_supervisor(faults: Faults) -> None:
    """Scenario 35: what the kernel's OOM killer looks at is higher for a worker and its children than for others."""
    body = 'def f(x: int) -> int:\n    _audit()\n    return int(open("/proc/self/oom_score_adj").read())\n'
    pool = faults.map(body, 2)
    faults.injected()
    faults.ended(pool)
    faults.check(pool, lambda _: 500)


FORKS = {
    "returns": "os.fork()",
    "raises": "if not os.fork():\n    raise ValueError('in the child')",
    "exits": "if not os.fork():\n    sys.exit(5)",
    "returns-what-cannot-be-stored": "if not os.fork():\n    return (each for each in ())",
    "waited-for": "pid = os.fork()\nif not pid:\n    sys.exit(7)\nassert os.waitpid(pid, 0)[1] == 7 << 8",
}


@pytest.mark.scenario(37)
def test_a_child_that_comes_back_from_the_function_makes_no_second_outcome_and_ends(faults: Faults) -> None:
    """Scenario 37: ``os.fork()``, and the child returns, raises or exits: one outcome, and the child is gone."""
    # A line at the end as well, which the child leaves, too, with a number of its own.
    body, tasks = several(FORKS, rest="_audit('ended')\nreturn x * x")
    pool = faults.map(body, TASKS)
    faults.injected(len(tasks))
    check_all_succeeded(faults, pool)
    returned = faults.ran("ended")
    assert returned[tasks["returns"]] == 2, "the child came back"
    assert not [pid for pid in {*faults.pids(), *faults.pids("ended")} if alive(pid)]


@pytest.mark.scenario(37)
def test_a_pool_of_processes_inside_a_task_works(faults: Faults) -> None:
    """Scenario 37: ``multiprocessing`` in a UDF, whose own children end by ``os._exit``."""
    use = 'with multiprocessing.get_context("{}").Pool(2) as pool:\n    return pool.map(_one, [x, 1])[0]'
    deeds = {method: use.format(method) for method in ("fork", "spawn", "forkserver")}
    body, _ = several(deeds, top="import multiprocessing\ndef _one(x):\n    return x * x\n")
    pool = faults.map(body, TASKS)
    faults.injected(len(deeds))
    check_all_succeeded(faults, pool)
