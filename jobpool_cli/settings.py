"""What a Python session can set: ``jobpool_cli.options``."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_type_hints


class _Settings:
    """Settings with fixed names and types: a slip of the pen is an error, not a setting that nobody reads."""

    __slots__ = ()

    if not TYPE_CHECKING:  # a type checker that sees these lets every name pass

        def __getattr__(self, name: str) -> object:
            """Refuse a name that there is not."""
            raise self._unknown(name)

        def __setattr__(self, name: str, value: object) -> None:
            """Set a setting that there is, to a value of its type."""
            kinds = get_type_hints(type(self))
            if name not in kinds:
                raise self._unknown(name)
            if not isinstance(value, kinds[name]):
                what = "True or False" if kinds[name] is bool else f"a {kinds[name].__name__}"
                raise TypeError(f"{name} is {what}, not {value!r}")
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """Show all settings."""
        shown = [f"{name}={getattr(self, name)!r}" for name in get_type_hints(type(self))]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _unknown(self, name: str) -> AttributeError:
        from difflib import get_close_matches  # noqa: PLC0415 - for a mistake only

        names = list(get_type_hints(type(self)))
        near = get_close_matches(name, names, 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, names))}"
        return AttributeError(f"{type(self).__name__} has no setting {name!r}; {hint}")


class ShowOptions(_Settings):
    """What is shown.

    Attributes:
        enable_tqdm: show a progress bar while one waits, on a terminal and in a notebook.
    """

    __slots__ = ("enable_tqdm",)

    enable_tqdm: bool

    def __init__(self, *, enable_tqdm: bool = True) -> None:
        """Begin with what most people want."""
        self.enable_tqdm = enable_tqdm


class Options(_Settings):
    """All settings of this Python session.

    Attributes:
        show: what is shown.

    Example:
        >>> import jobpool_cli
        >>> jobpool_cli.options.show.enable_tqdm = False
        >>> jobpool_cli.options.show
        ShowOptions(enable_tqdm=False)
        >>> jobpool_cli.options.show.enable_tqdm = True
    """

    __slots__ = ("show",)

    show: ShowOptions

    def __init__(self) -> None:
        """Begin with what most people want."""
        self.show = ShowOptions()


options = Options()
