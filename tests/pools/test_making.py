"""What is left of a pool that a person stops while it is made."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Self

import pytest

from jobpool_cli import submit
from jobpool_cli.layout import pools_folder
from jobpool_cli.model import PoolOptions
from tests.helpers import imports_undone

OURS = os.path.dirname(submit.__file__)


class Interrupter:
    """Raises KeyboardInterrupt at one call or return of jobpool's own functions, as Ctrl-C would; counts them all."""

    def __init__(self, moment: int | None) -> None:
        """Choose the moment; None only counts."""
        self.moment = moment
        self.seen = 0

    def __enter__(self) -> Self:
        """Begin."""
        sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        # What is raised while Python closes a generator goes nowhere.
        closes = code.co_flags & inspect.CO_GENERATOR
        if event in {"call", "return"} and code.co_filename.startswith(OURS) and not closes:
            self.seen += 1
            if self.seen == self.moment:
                raise KeyboardInterrupt


def test_ctrl_c_at_any_call_while_a_pool_is_made_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "launch", lambda _paths, _standby: None)
    (tmp_path / "udf.py").write_text("def f(x: int) -> int:\n    return x\n")
    (tmp_path / "args.csv").write_text("x\n1\n2\n")
    with imports_undone():
        udf, rows = str(tmp_path / "udf.py"), str(tmp_path / "args.csv")
        checked = submit.check(udf, rows, constants={}, options=PoolOptions())
    with Interrupter(None) as all_of_them:
        submit.submit(checked, tmp_path / "counted", "pool")
    assert all_of_them.seen > 100
    for moment in range(1, all_of_them.seen):
        home = tmp_path / f"home-{moment}"
        with pytest.raises(KeyboardInterrupt), Interrupter(moment):
            submit.submit(checked, home, "pool")
        pools = pools_folder(home)
        assert not pools.exists() or os.listdir(pools) == [], f"after {moment} of {all_of_them.seen}"
