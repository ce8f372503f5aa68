"""What came of a pool's tasks, as tables of pandas; pandas is imported by the methods that return one."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from jobpool_cli.errors import TasksFailedError
from jobpool_cli.model import PoolStatus, TaskState
from jobpool_cli.pool.outcomes import PoolOutcomes
from jobpool_cli.twins import Steps, both, twin

if TYPE_CHECKING:
    import pandas as pd

    from jobpool_cli.store.outcomes.collect import Collected

Result = TypeVar("Result")


class PoolTables(PoolOutcomes[Result]):
    """One pool, and tables of it."""

    def status(self) -> pd.Series[int]:
        """Return how many tasks are in each state.

        Returns:
            a Series of six integers, indexed by ``status``: pending, running, success, error, timeout, cancelled.

        Example:
            >>> quotients.status()["error"]
            np.int64(1)
        """
        import pandas as pd  # noqa: PLC0415

        counts = self.snapshot().counts
        index = pd.Index([state.value for state in TaskState], name="status")
        return pd.Series([counts[state] for state in TaskState], index=index, name="count", dtype="int64")

    status_async = twin(status)

    def arg_df(self) -> pd.DataFrame:
        """Return the arguments, a row per task and a column per argument; constants are no part of it.

        Example:
            >>> pool.arg_df()["x"].tolist()
            [1, 2, 3]
        """
        from jobpool_cli.store.arguments.stored import arguments_frame  # noqa: PLC0415

        self._check_owner()
        return arguments_frame(self.paths.args)

    arg_df_async = twin(arg_df)

    def _gather(
        self,
        *,
        ignore_exceptions: bool = False,
        flatten: bool = True,
        drop_index: bool = False,
        partial: bool = False,
        timeout: float | None = None,
    ) -> Steps[Collected]:
        """Wait for all tasks and gather their results into one table, to be had as Arrow or as pandas.

        Args:
            ignore_exceptions: leave failed and cancelled tasks out instead of raising.
            flatten: where every result is a table, the rows of all; otherwise one column ``result``.
            drop_index: index by position instead of by the arguments.
            partial: take what there is now instead of waiting.
            timeout: wait no longer than so many seconds.

        Raises:
            ConflictError: nobody works on the pool, which is not done.
            TasksFailedError: tasks failed or were cancelled, and neither option allows that.
            WaitTimeoutError: the pool was not done in time.
        """
        import pyarrow as pa  # noqa: PLC0415 - only where something is collected

        from jobpool_cli.store.arguments.stored import check_rows, read_stored  # noqa: PLC0415
        from jobpool_cli.store.outcomes.collect import assemble  # noqa: PLC0415
        from jobpool_cli.store.outcomes.segments import read_outcomes  # noqa: PLC0415

        status = self.snapshot() if partial else (yield from self._follow(timeout))
        if not (ignore_exceptions or partial):
            self._check_complete(status)
        self._check_owner()
        with self._reader() as reader:
            parts = [*read_outcomes(self.paths, reader, ["task", "result", "result_pickle"])]
        return assemble(
            parts,
            # Where the arguments are damaged, the results can still be had without them.
            pa.table({}) if drop_index else check_rows(read_stored(self.paths.args), self.n_jobs),
            flatten=flatten,
            drop_index=drop_index,
            leave_out_unreadable=ignore_exceptions,
        )

    gather, gather_async = both(_gather)

    def _check_complete(self, status: PoolStatus) -> None:
        cancelled = status.counts[TaskState.CANCELLED]
        first = self.first_failure()
        if first is not None:
            raise TasksFailedError(
                f"{status.failed} of {status.n_jobs} tasks failed; the first is task {first.task}:"
                f" {first.type}: {first.message}",
                f"see all: jobpool errors {self.name}; leave them out: --ignore-exceptions",
            )
        if cancelled:
            raise TasksFailedError(
                f"{cancelled} of {status.n_jobs} tasks were cancelled",
                f"run them: jobpool retry --cancelled {self.name}; leave them out: --ignore-exceptions",
            )

    def _collect(
        self,
        ignore_exceptions: bool = False,
        flatten: bool = True,
        drop_index: bool = False,
    ) -> Steps[pd.DataFrame]:
        """Wait until all tasks are finished and return their results as one table.

        Args:
            ignore_exceptions: leave failed and cancelled tasks out instead of raising the first exception.
            flatten: where every result is a table (a DataFrame, a GeoDataFrame, a Series, an Arrow or Polars table),
                the rows of all of them; otherwise, or where some are none, one column ``result``.
            drop_index: index by position instead of by the arguments.

        Returns:
            a DataFrame in the order of the arguments. Its index has a level per argument, named after the parameter,
            and then the levels of the tables' own index; positions are those of the tasks, also where some are left
            out. A GeoDataFrame where all results are.

        Raises:
            Exception: what the function raised, as ``results`` raises it.
            ConflictError: the pool is interrupted, so that it would never end.

        Example:
            >>> pool.collect()
               result
            x
            1       1
            2       4
            3       9
            >>> quotients.collect(ignore_exceptions=True, drop_index=True)
                  result
            task
            0        1.0
        """
        yield from self._wait()
        if not ignore_exceptions:
            self._raise_first()
        collected = yield from self._gather(ignore_exceptions=ignore_exceptions, flatten=flatten, drop_index=drop_index)
        frame = collected.to_pandas()
        for note in collected.notes:
            # Shown at the caller's line: this function, the driver of its steps, the public method.
            warnings.warn(note, stacklevel=4)
        return frame

    collect, collect_async = both(_collect)
    df, df_async = collect, collect_async

    def logs_df(
        self,
        status_column: str | None = "status",
        result_column: str | None = "result",
        time_column: str | None = "time",
        logs_column: str | None = "logs",
        exception_column: str | None = None,
        include_exceptions: bool = True,
    ) -> pd.DataFrame:
        r"""Return a table of all tasks as they are now: their arguments, state, result, time and logs.

        An argument that has the name of one of the columns is kept as ``arg_`` and its name, with a warning.

        Args:
            status_column: name of the column of states; None to omit it, as with all columns.
            result_column: name of the column of results.
            time_column: name of the column of times (timedelta).
            logs_column: name of the column of logs.
            exception_column: name of the column of exceptions.
            include_exceptions: of failed tasks, put the exception into the column of results.

        Returns:
            a DataFrame, a row per task in their order. What a task does not have yet is None.

        Example:
            >>> pool.logs_df(time_column=None)
               x   status  result          logs
            0  1  success       1  squaring 1\n
            1  2  success       4  squaring 2\n
            2  3  success       9  squaring 3\n
        """
        import pandas as pd  # noqa: PLC0415

        frame = self.arg_df()
        columns: dict[str, list[Any]] = {}
        if status_column is not None:
            columns[status_column] = [str(state) for state in self.task_table()["state"].to_pylist()]
        wants_errors = exception_column is not None or (result_column is not None and include_exceptions)
        raised = self.errors() if wants_errors else {}
        if result_column is not None:
            found = self.success()
            failed = raised if include_exceptions else {}
            columns[result_column] = [found.get(task, failed.get(task)) for task in range(self.n_jobs)]
        if time_column is not None:
            columns[time_column] = self.times()
        if logs_column is not None:
            columns[logs_column] = self.logs()
        if exception_column is not None:
            columns[exception_column] = [raised.get(task) for task in range(self.n_jobs)]
        for name in [each for each in frame.columns if each in columns]:
            renamed = f"arg_{name}"
            warnings.warn(f"the argument {name!r} has the name of a column of the log: it is {renamed!r}", stacklevel=2)
            frame = frame.rename(columns={name: renamed})
        for name, values in columns.items():
            column = pd.Series(values, index=frame.index, dtype=object)
            # A result that is missing must not become NaN, which is a result like any other.
            complete = name != result_column or all(value is not None for value in values)
            frame[name] = column.infer_objects() if complete else column
        return frame

    logs_df_async = twin(logs_df)
