"""``JobPool``: find a pool or make one, and then everything that its bases offer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar, overload

from jobpool_cli.errors import JobPoolError
from jobpool_cli.finding import LAST, by_age, find
from jobpool_cli.layout import check_name, home_folder, pools_folder
from jobpool_cli.model import PoolOptions, PoolStatus
from jobpool_cli.pool.tables import PoolTables
from jobpool_cli.twins import Steps, both

if TYPE_CHECKING:
    from types import TracebackType

    from jobpool_cli.pool.task import Task
    from jobpool_cli.submit import Submission
    from jobpool_cli.supervisor.launch import Standby

Result = TypeVar("Result")


class JobPool(PoolTables[Result]):
    """The tasks of one `map` on disk: their arguments, states, logs and results.

    A pool runs on when this object, the process and the terminal are gone; any number of objects, in any number of
    processes, may look at the same pool. ``len(pool)`` is the number of tasks, ``pool[17]`` is one of them.

    Every method that takes time has a twin that is a coroutine: ``pool.wait()``, ``await pool.wait_async()``.

    Example:
        >>> from jobpool_cli import JobPool, udf
        >>> @udf
        ... def square(x: int) -> int:
        ...     return x**2
        >>> pool = square.map([1, 2, 3], name="first")
        >>> pool.results()
        [1, 4, 9]
        >>> JobPool.open("first")
        <JobPool first: done, 3 tasks: 3 success>
    """

    # --- finding pools

    @classmethod
    def open(cls, name: str = LAST, *, home: str | None = None) -> JobPool[Any]:
        """Open a pool by its name; ``last`` is the newest.

        Args:
            name: as `map` gave it.
            home: the folder in which pools are kept; by default ``JOBPOOL_HOME``, else the platform's.

        Raises:
            NoSuchPoolError: there is none; names the nearest.
            DamagedPoolError: it is there, and unreadable.

        Example:
            >>> JobPool.open("squares").n_jobs
            3
        """
        return JobPool(find(name, home_folder(home)))

    @classmethod
    def list(cls, *, home: str | None = None) -> list[str]:
        """Return the names of all pools, oldest first.

        Example:
            >>> JobPool.list()
            ['squares', 'quotients']
        """
        return [root.name for root in by_age(home_folder(home))]

    # --- making and deleting pools from a file, as the command line does

    @staticmethod
    def check(
        udf: str,
        source: str,
        *,
        constants: Mapping[str, str] | None = None,
        options: PoolOptions | None = None,
        input_format: str | None = None,
        stdin: BinaryIO | None = None,
    ) -> Submission:
        """Check a UDF and its arguments without changing anything.

        Args:
            udf: ``file.py`` or ``file.py:name``.
            source: a file of arguments, or ``-`` for ``stdin``.
            constants: arguments that are the same for every task.
            options: how the pool shall run.
            input_format: of the source, where neither its name nor its content tells.
            stdin: read for ``-``.

        Raises:
            InputError: says what does not fit, where, and what to do.
        """
        from jobpool_cli.submit import check  # noqa: PLC0415 - pyarrow and pydantic, only for this

        return check(
            udf,
            source,
            constants=constants or {},
            options=options or PoolOptions(),
            input_format=input_format,
            stdin=stdin,
        )

    @staticmethod
    def stand_by(options: PoolOptions) -> contextlib.AbstractContextManager[Standby | None]:
        """Start supervisor and workers ahead of a pool that is checked and submitted in the ``with`` block of it."""
        from jobpool_cli.supervisor.launch import Standby  # noqa: PLC0415 - `status` starts nothing

        if options.cluster is not None:
            # Its workers are elsewhere.
            return contextlib.nullcontext()
        return Standby(options.processes)

    @classmethod
    def submit(
        cls,
        submission: Submission,
        *,
        name: str | None = None,
        home: str | None = None,
        standby: Standby | None = None,
    ) -> JobPool[Any]:
        """Make a pool of what was checked, and start it.

        Args:
            submission: from ``check``.
            name: the pool's name; by default the function's name with a number.
            home: where pools are kept.
            standby: from ``stand_by``.

        Raises:
            ConflictError: there is a pool of that name.
            InputError: the UDF does not load in a worker; no pool is left.
            MachineError: the disk or the machine refuses.
        """
        from jobpool_cli.submit import submit  # noqa: PLC0415

        return JobPool(submit(submission, home_folder(home), name, standby=standby).root)

    @staticmethod
    def remove_remains(name: str, *, home: str | None = None, force: bool = False) -> bool:
        """Delete a pool that cannot be opened, or that a killed `rm` left half deleted; False if there is none.

        Raises:
            ConflictError: it is being worked on, and ``force`` is not given.
        """
        from jobpool_cli.removal import finish_removal, remove  # noqa: PLC0415

        pools = pools_folder(home_folder(home))
        check_name(name)
        if not (pools / name).exists():
            return finish_removal(pools, name)
        remove(pools / name, force=force)
        return True

    # --- one task, and all of them

    @overload
    def __getitem__(self, index: int) -> Task[Result]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Task[Result]]: ...

    def __getitem__(self, index: int | slice) -> Task[Result] | Sequence[Task[Result]]:
        """Return one task, or some, as they are now; negative positions count from the end.

        Raises:
            IndexError: there is no such task.

        Example:
            >>> pool[2]
            <Task 2 of squares: success>
            >>> pool[-1].result, [task.status for task in pool[:2]]
            (9, [<TaskState.SUCCESS: 'success'>, <TaskState.SUCCESS: 'success'>])
        """
        from jobpool_cli.pool.task import tasks_at  # noqa: PLC0415 - dataclasses, which `status` does without

        if isinstance(index, slice):
            return tasks_at(self, range(self.n_jobs)[index])
        try:
            number = range(self.n_jobs)[index]
        except IndexError:
            raise IndexError(f"{self.name} has {self.n_jobs} tasks, and none at {index}") from None
        return tasks_at(self, range(number, number + 1))[0]

    def __iter__(self) -> Iterator[Task[Result]]:
        """Yield the tasks in the order of the arguments, each as it is when its turn comes near."""
        from jobpool_cli.pool.task import all_tasks  # noqa: PLC0415 - dataclasses, as above

        return all_tasks(self)

    # --- watching

    def _tail(self, stop_on_exception: bool = False) -> Steps[None]:
        """Wait until all tasks are finished, printing a line as each ends; Ctrl-C ends the watching, not the pool.

        Where many end at once, one line tells of all of them.

        Args:
            stop_on_exception: return when the first task has failed.

        Raises:
            ConflictError: nobody works on the pool.

        Example:
            >>> print("watching:"); pool.tail()
            watching:
            ... task 0 success ...
            squares is done after ... 3 succeeded
        """
        from jobpool_cli.settings import options  # noqa: PLC0415 - not for commands
        from jobpool_cli.show.tail import TailLines  # noqa: PLC0415 - only where somebody watches

        watch = self.watch()
        with TailLines(sys.stdout, bar=options.show.enable_tqdm) as shown:

            def look(status: PoolStatus) -> None:
                changes = watch.look()
                shown.add(status, changes)
                if stop_on_exception and changes.first_failure is not None:
                    raise _SeenEnough

            with contextlib.suppress(_SeenEnough):
                shown.end((yield from self._follow(on_look=look, look_every=shown.look_every)))

    tail, tail_async = both(_tail)

    def debug(self, task: int, *, pdb: bool = False) -> Result:
        """Run one task here, in this process and before your eyes, and return its result; the pool stays as it is.

        The code is the pool's own (the newest, after ``retry(udf=...)``), so are the arguments and the working folder.
        What the function prints is seen at once, what it raises is raised, and ``breakpoint()`` works.

        Args:
            task: its position.
            pdb: open the debugger where an exception was raised.

        Raises:
            UsageError: there is no such task.
            Exception: what the function raises.

        Example:
            >>> pool.debug(2)
            squaring 3
            9
        """
        from jobpool_cli.worker.foreground import run_in_foreground  # noqa: PLC0415 - loads the user's code

        self.check_tasks([task])
        self._check_owner()
        result: Result = run_in_foreground(self.paths, self.manifest, task, debugger=pdb)
        return result

    # --- as an object

    def __repr__(self) -> str:
        """Tell the pool's name and how it is doing."""
        from jobpool_cli.show.text import count, number  # noqa: PLC0415 - not every command shows something

        try:
            status = self.snapshot()
        except JobPoolError as error:
            return f"<JobPool {self.name}: unreadable, {error.message}>"
        counts = ", ".join(f"{number(many)} {state}" for state, many in status.counts.items() if many)
        return f"<JobPool {self.name}: {status.state}, {count(status.n_jobs)}{counts and ': '}{counts}>"

    def _repr_html_(self) -> str | None:
        """Show the same in a notebook, with a bar; None where there is nothing to show but the words above."""
        from jobpool_cli.show.html import pool_html  # noqa: PLC0415 - only notebooks ask

        try:
            return pool_html(self.snapshot())
        except JobPoolError:
            return None

    def __eq__(self, other: object) -> bool:
        """Two objects are equal when they are views of one pool."""
        return isinstance(other, JobPool) and self.manifest.id == other.manifest.id

    def __hash__(self) -> int:
        """Agree with ``==``."""
        return hash(self.manifest.id)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the name and the home: whoever unpickles it on this machine has the same pool."""
        return _reopen, (self.name, str(self.paths.root.parent.parent))

    def __enter__(self) -> Self:
        """Return the pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until the pool is done; after an exception let the running tasks end and leave the rest pending."""
        if kind is None:
            self.wait()
        else:
            self.shutdown()

    async def __aenter__(self) -> Self:
        """Return the pool itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do as the plain block does, without holding up the event loop."""
        await (self.wait_async() if kind is None else self.shutdown_async())


class _SeenEnough(Exception):  # noqa: N818 - it never leaves `tail`
    """A task has failed, and whoever watches wanted to see no more than that."""


def _reopen(name: str, home: str) -> JobPool[Any]:
    return JobPool.open(name, home=home)
