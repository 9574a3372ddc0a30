"""What is wrong with the list of mailbox providers that `delivery.providers` names; `books` goes on with ours."""

from __future__ import annotations

from pathlib import Path

from postmeter.cli.command import said
from postmeter.config.load import Loaded
from postmeter.config.problem import Problem
from postmeter.delivery import providers


def problems(loaded: Loaded) -> list[Problem]:
    """By the file's line."""
    path = loaded.config.delivery.providers
    try:
        providers.read(path if isinstance(path, Path) else None)
    except OSError as error:
        return [loaded.problem("delivery.providers", said(error), "name a file that is there, or default")]
    except ValueError as error:
        return [loaded.problem("delivery.providers", f"{path}: {error}", "see docs/operations.md for its form")]
    return []
