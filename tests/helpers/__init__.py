"""What tests of several files share; an assertion that fails in here shows its values, too."""

from pathlib import Path

import pytest

files = Path(__file__).parent.glob("*.py")
pytest.register_assert_rewrite(*(f"helpers.{file.stem}" for file in files))
