"""What gets hosts, and carries bytes to them and back: Dask, or anything else that can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Connected:
    """There is a cluster, which has so many workers at this moment."""

    workers: int


@dataclass(frozen=True)
class Up:
    """A host has been reached: ``where`` names its machine for people."""

    host: int
    where: str


@dataclass(frozen=True)
class Data:
    """Bytes of a host's stream."""

    host: int
    data: bytes


@dataclass(frozen=True)
class Down:
    """A host is gone, or could not be had."""

    host: int
    why: str


@dataclass(frozen=True)
class Gone:
    """No host can be had any more. ``is_refusal``: nor could any ever, as things are."""

    why: str
    hint: str = ""
    is_refusal: bool = False


News = Connected | Up | Data | Down | Gone


class Carrier(Protocol):
    """Gets hosts, and carries bytes to and from them; nothing here waits. Hosts are numbered by the caller."""

    @property
    def waiting(self) -> int:
        """Bytes that cannot be sent yet; ``news`` tries again."""

    def fileno(self) -> int:
        """Return what becomes readable when there is news."""

    def open(self, host: int) -> None:
        """Get a host; ``Up`` follows when there is one, or ``Down``."""

    def send(self, host: int, data: bytes) -> None:
        """Send bytes to a host that is up."""

    def end(self, host: int) -> None:
        """Give a host back; ``Down`` follows."""

    def news(self) -> list[News]:
        """Return what has come."""

    def close(self) -> None:
        """Give all hosts back, and see to it that nothing is left of them."""
