"""What tests of the show package share."""

from __future__ import annotations

from tests.terminals import terminal

__all__ = ["terminal"]
