"""What the modes render is what was last read and kept."""

import pytest

from tests.charts.golden import FOLDER, MODES, golden


@pytest.mark.parametrize("mode", MODES)
def test_what_a_mode_renders_was_read_by_somebody(mode: str) -> None:
    assert golden(mode) == (FOLDER / f"{mode}.yaml").read_text(), "run `make golden` and read the difference"
