from __future__ import annotations

from pathlib import Path

import pytest

from dev.settings_docs import generated_parts, replace_part


@pytest.mark.parametrize(("path", "generated"), generated_parts().items(), ids=lambda value: getattr(value, "name", ""))
def test_files_hold_the_settings_that_make_settings_writes(path: Path, generated: str) -> None:
    assert path.read_text() == replace_part(path.read_text(), generated)


def test_a_text_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="are missing"):
        replace_part("# nothing generated\n", "")
