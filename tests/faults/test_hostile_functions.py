"""Functions that change their process, or try to end it politely: the next task finds the world as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobpool_cli.model import TaskState
from tests.faults.harness import Faults
from tests.faults.one_bad import BAD, TASKS, check_all_succeeded, hostile, several
from tests.helpers import results_of

# What a task raises, and the type and message that are recorded.
RAISED = {
    "sys.exit(0)": ("SystemExit", "0"),
    "sys.exit('no more')": ("SystemExit", "no more"),
    "raise KeyboardInterrupt": ("KeyboardInterrupt", ""),
    "raise GeneratorExit": ("GeneratorExit", ""),
    "raise StopIteration(3)": ("StopIteration", "3"),
    "raise asyncio.CancelledError": ("asyncio.exceptions.CancelledError", ""),
    "raise Own('mine')": ("pool_job.Own", "mine"),
    "raise BaseExceptionGroup('both', [KeyboardInterrupt(), Own('x')])": (
        "BaseExceptionGroup",
        "both (2 sub-exceptions)",
    ),
    "os.kill(os.getpid(), signal.SIGINT); time.sleep(5)": ("KeyboardInterrupt", ""),
}


@pytest.mark.scenario(33)
def test_an_exception_of_any_kind_fails_its_task_once_and_the_worker_is_kept(faults: Faults) -> None:
    """Scenario 33: SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError, a custom BaseException."""
    top = "import asyncio\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nclass Own(BaseException): pass\n"
    body, tasks = several({deed: deed for deed in RAISED}, top=top)
    pool = faults.map(body, TASKS, "-j", "1")
    faults.injected(len(RAISED))
    faults.ended(pool)
    found = {each.task: (each.type, each.message) for each in pool.failures()}
    assert found == {tasks[deed]: told for deed, told in RAISED.items()}
    assert pool.snapshot().counts[TaskState.SUCCESS] == TASKS - len(RAISED)
    assert set(faults.audit().values()) == {1}
    assert len(set(faults.pids())) == 1, "the worker was kept"
    faults.check(pool)


STREAMS = {
    "closes both": "os.close(1); os.close(2)",
    "closes the streams": "sys.stdout.close(); sys.stderr.close()",
    "other streams": "sys.stdout = sys.stderr = io.StringIO()",
    "no streams": "sys.stdout = sys.stderr = None",
    "closed streams": "sys.stdout = sys.stderr = open(os.devnull); sys.stdout.close()",
    "no attribute": "del sys.stdout, sys.stderr",
    "turns both elsewhere": "for fd in (1, 2): os.dup2(os.open(os.devnull, os.O_WRONLY), fd)",
    "turns errors elsewhere": "os.dup2(os.open(os.devnull, os.O_WRONLY), 2)",
    "closes and opens": "os.close(1); os.open(os.devnull, os.O_WRONLY)",
    "closes the first three": "os.closerange(0, 3)",
}
SPEAKS = """print(f"<{x}>")
sys.stderr.write(f"({x})\\n")
os.write(1, f"[{x}]".encode())
os.write(2, f"_{x}_\\n".encode())
return x * x"""


@pytest.mark.scenario(36)
def test_what_a_task_does_to_its_streams_leaves_the_log_of_the_next_task_whole(faults: Faults) -> None:
    """Scenario 36: descriptors 1 and 2 closed or turned elsewhere, sys.stdout replaced: the next log is intact."""
    deeds = {name: f"{deed}\nreturn x * x" for name, deed in STREAMS.items()}
    body, tasks = several(deeds, top="import io", rest=SPEAKS)
    pool = faults.map(body, TASKS, "-j", "1")
    faults.injected(len(deeds))
    check_all_succeeded(faults, pool)
    said = {log.task: b"".join(log.chunks()).decode() for log in pool.task_logs()}
    wrong = {x for x in range(TASKS) if x not in tasks.values() and said[x] != f"<{x}>\n({x})\n[{x}]_{x}_\n"}
    assert not wrong, ({x: said[x] for x in list(wrong)[:5]}, tasks)
    assert len(set(faults.pids())) == 1


@pytest.mark.scenario(36)
@pytest.mark.parametrize("after", ["", "time.sleep(30)"], ids=["and-returns", "and-goes-on"])
def test_a_task_that_closes_every_descriptor_is_a_crash_that_says_so(faults: Faults, after: str) -> None:
    """Scenario 36: every descriptor from 3 on closed: a crash with a clear message; neighbours are not blamed."""
    pool = faults.map(hostile(f"os.closerange(3, 65536)\n{after}", settled=True), TASKS, "--max-crashes", "2")
    faults.injected(2)
    faults.ended(pool)
    assert pool.snapshot().counts[TaskState.SUCCESS] == TASKS - 1
    (failure,) = pool.failures()
    assert (failure.task, failure.type) == (BAD, "WorkerCrashed")
    assert "close, file descriptors that it did not open" in failure.message
    assert {each.task for each in pool.failures(history=True)} == {BAD}
    faults.check(pool)


LEFT_BEHIND = {
    "prints later": "threading.Thread(target=lambda: [time.sleep(0.05), print('later')]).start()",
    "prints for ever": "threading.Thread(target=_chatter).start()",
    "never ends": "threading.Thread(target=threading.Event().wait).start()",
    "at exit": "atexit.register(time.sleep, 60)",
    "raises": "threading.Thread(target=lambda: 1 / 0).start()",
    "executor": "executor = concurrent.futures.ThreadPoolExecutor(2); executor.submit(time.sleep, 60)",
    "child that prints": "subprocess.Popen(['sh', '-c', 'sleep 0.05; echo later'])",
}


@pytest.mark.scenario(38)
def test_a_thread_or_an_exit_handler_that_is_left_behind_does_not_hold_the_pool_up(faults: Faults) -> None:
    """Scenario 38: a non-daemon thread that prints after the return, one that never ends, an exit handler."""
    top = "import atexit, concurrent.futures, threading\ndef _chatter():\n"
    top += "    while True:\n        print('on and on'); time.sleep(0.0001)\n"
    body, tasks = several(LEFT_BEHIND, top=top)
    pool = faults.map(body, TASKS, "-j", "1")
    faults.injected(len(tasks))
    faults.ended(pool, 30)
    check_all_succeeded(faults, pool)


# What a task may find: read anew by each, and compared with what the first one found.
WORLD = """
import decimal, gc, locale, warnings
def _world():
    mask = os.umask(0o77); os.umask(mask)
    return {
        "cwd": os.getcwd(), "umask": mask, "locale": locale.setlocale(locale.LC_ALL, None), "path": list(sys.path),
        "handlers": [str(signal.getsignal(each)) for each in (15, 2, 14, 10, 12, 13, 17, 1)],
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "timer": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        "tracer": sys.gettrace() is None, "profiler": sys.getprofile() is None,
    }
"""
CHANGES = {
    "cwd": "os.chdir('/')",
    "cwd-by-descriptor": "os.fchdir(os.open('/', os.O_RDONLY))",
    "cwd-that-is-deleted": "d = os.path.join(FOLDER, 'gone'); os.mkdir(d); os.chdir(d); os.rmdir(d)",
    "umask": "os.umask(0)",
    "locale": "locale.setlocale(locale.LC_ALL, 'C.UTF-8'); locale.setlocale(locale.LC_NUMERIC, 'C')",
    "handlers": "[signal.signal(each, signal.SIG_IGN) for each in (15, 2, 14, 10, 12, 13, 17, 1)]",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})",
    "path-cleared": "sys.path.clear()",
    "path-reversed": "sys.path.reverse()",
    "path-replaced": "sys.path = ['/nowhere']",
    "alarm": "signal.alarm(1)",
    "timer": "signal.setitimer(signal.ITIMER_REAL, 0.4, 0.1)",
    "tracer": "sys.settrace(lambda *_: None)",
    "profiler": "sys.setprofile(lambda *_: None)",
    "all": "os.chdir('/'); os.umask(0); sys.path.clear(); signal.signal(15, signal.SIG_IGN); time.sleep(0.05)",
}


@pytest.mark.scenario(43)
def test_what_a_task_changes_in_its_process_the_next_one_finds_as_it_was(faults: Faults) -> None:
    """Scenario 43: cwd, umask, locale, signal handlers, sys.path; timers and tracers too: even after a short task."""
    deeds = {name: f"{deed}\nreturn None" for name, deed in CHANGES.items()}
    body, tasks = several(deeds, top=WORLD, rest="if x > 95: time.sleep(0.3)\nreturn _world()")
    pool = faults.map(body, TASKS, "-j", "1")
    faults.injected(len(deeds))
    check_all_succeeded(faults, pool, None)
    worlds = results_of(pool)
    names = {task: name for name, task in tasks.items()}
    first = worlds[0]
    assert isinstance(first, dict)
    assert first["cwd"] == str(faults.folder)
    changed = {names[x - 1]: worlds[x] for x in worlds if x - 1 in names and worlds[x] != first}
    assert not changed, (first, changed)
    assert all(worlds[x] == first for x in worlds if x not in names)
    assert len(set(faults.pids())) == 1


@pytest.mark.scenario(43)
def test_what_only_c_code_knows_to_have_changed_is_put_back_within_milliseconds(faults: Faults) -> None:
    """Scenario 43: the same by way of C: the umask, which Python cannot notice, is put back soon."""
    body = f"""
def f(x: int) -> int:
    _audit()
    if x == {BAD}:
        ctypes.CDLL(None).umask(0)
        time.sleep(0.006)
        return 0o77
    mask = os.umask(0o77); os.umask(mask)
    return mask
"""
    pool = faults.map(body, TASKS, "-j", "1", prefix=["sh", "-c", 'umask 077; exec "$@"', "sh"])
    faults.injected()
    check_all_succeeded(faults, pool, lambda _: 0o77)
    assert Path(faults.folder, "audit").stat().st_mode & 0o777 == 0o600
