"""What end-to-end tests start from: labs that live as long as their module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.lab.lab import Lab

OpenLab = Callable[[Lab], Lab]


@pytest.fixture(scope="module")
def open_lab(needs_postfix: None) -> Iterator[OpenLab]:
    """Starts a lab that ends with the module; `lab = open_lab(Lab({"mode": "observe"}))` in a module's own fixture."""
    with ExitStack() as stack:
        yield stack.enter_context
