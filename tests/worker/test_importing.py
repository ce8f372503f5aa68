"""Importing a user's file inside a command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobpool_cli.errors import InputError
from jobpool_cli.worker import importing
from jobpool_cli.worker.function import locate_udf

if TYPE_CHECKING:
    from tests.conftest import Run

FUNCTION = "\ndef f(x: int) -> int:\n    return x\n"


def test_what_a_file_writes_while_it_is_imported_does_not_mix_with_the_pool_s_name(
    run: Run, udf_file: Callable[..., Path], args_file: Callable[..., Path]
) -> None:
    noisy = "import os\nprint('by python')\nos.write(1, b'by descriptor\\n')\nos.system('echo by a child')\n"
    udf = udf_file(noisy + FUNCTION)
    done = run("map", udf, args_file("x\n1\n"), "--name", "quiet", code=0)
    assert done.stdout == "quiet\n"
    assert {"by python", "by descriptor", "by a child"} <= set(done.stderr.splitlines())


def test_a_file_that_ends_the_process_while_it_is_imported_is_refused(
    run: Run, udf_file: Callable[..., Path], args_file: Callable[..., Path]
) -> None:
    udf = udf_file("import os\nos._exit(0)\n" + FUNCTION)
    done = run("map", udf, args_file("x\n1\n"), code=2)
    assert "ends the process while it is imported" in done.stderr


def test_an_import_without_end_is_given_up_with_the_place_where_it_stood(
    udf_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "IMPORT_SECONDS", 0.2)
    udf = udf_file("while True:\n    pass\n" + FUNCTION)
    with pytest.raises(InputError, match=r"not imported within 0.2 s[\s\S]*udf.py"):
        locate_udf(str(udf))
