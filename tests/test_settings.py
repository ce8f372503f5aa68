from __future__ import annotations

import pytest

from jobpool_cli.settings import Options


def test_a_setting_is_set_and_read() -> None:
    options = Options()
    assert options.show.enable_tqdm
    options.show.enable_tqdm = False
    assert repr(options) == "Options(show=ShowOptions(enable_tqdm=False))"


def test_a_mistyped_setting_is_refused_and_the_nearest_named() -> None:
    options = Options()
    with pytest.raises(AttributeError, match=r"ShowOptions has no setting 'enable_tdqm'; did you mean 'enable_tqdm'\?"):
        options.show.enable_tdqm = False  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"Options has no setting 'shwo'; did you mean 'show'\?"):
        _ = options.shwo.enable_tqdm  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="there is 'show'"):
        options.colour = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["no", 0, None])
def test_a_value_of_another_type_is_refused(value: object) -> None:
    options = Options()
    with pytest.raises(TypeError, match="enable_tqdm is True or False, not"):
        options.show.enable_tqdm = value  # type: ignore[assignment]
    with pytest.raises(TypeError, match="show is a ShowOptions, not False"):
        options.show = False  # type: ignore[assignment]
    assert options.show.enable_tqdm
