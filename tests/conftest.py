"""What tests may ask for before they begin.

A skip for want of Postfix, root or a verifier is a failure where everything must run: in CI and in `make all`. A part
of the lab is imported by who asks for it: together they take longer than most files of `unit/`.
"""

from __future__ import annotations

import gc
import os
import shutil

import pytest
from hypothesis import settings

from tests import corpora

# How long an example takes says more about the machine than about the code: no deadline. `make unit` is for in between.
settings.register_profile("quick", deadline=None, max_examples=12, database=None)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("thorough" if os.environ.get("POSTMETER_ALL") == "1" else "quick")


def pytest_collection_finish() -> None:
    """What was imported stays: the collector of garbage need not look through it again and again."""
    gc.freeze()


def _everything_must_run() -> bool:
    return os.environ.get("CI") == "true" or os.environ.get("POSTMETER_ALL") == "1"


def _want(reason: str) -> None:
    if reason and _everything_must_run():
        pytest.fail(f"{reason}, and here nothing may be skipped")
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def needs_postfix() -> None:
    """For a test that runs a private Postfix."""
    from tests.lab import postfix

    _want(postfix.missing())


@pytest.fixture(scope="session")
def needs_redis() -> None:
    """For a test that runs a private Redis."""
    from tests.lab import redis

    _want(redis.missing())


@pytest.fixture(scope="session")
def needs_postgres() -> None:
    """For a test that runs a private PostgreSQL."""
    from tests.lab import postgres

    _want(postgres.missing())


@pytest.fixture(scope="session")
def needs_verifiers() -> None:
    """For a test that asks OpenDKIM, Mail::DKIM and dkimpy."""
    from tests.lab import verify

    _want(verify.missing())


@pytest.fixture(scope="session")
def needs_miltertest() -> None:
    """For a test that runs a script for OpenDKIM's miltertest(8)."""
    _want("" if shutil.which("miltertest") else "Debian's miltertest is not installed")


@pytest.fixture(scope="session")
def needs_nginx() -> None:
    """For a test that runs a private nginx; `make all` unpacks one."""
    from tests.lab import nginx

    if nginx.missing() and os.environ.get("POSTMETER_ALL") != "1":
        pytest.skip(nginx.missing())
    _want(nginx.missing())


@pytest.fixture(scope="session")
def needs_chromium() -> None:
    """For a test that shows pages to a browser: in `make all` alone, which installs one."""
    from tests.lab import chromium

    if os.environ.get("POSTMETER_ALL") != "1":
        pytest.skip("a browser judges in `make all` only")
    _want(chromium.missing())


@pytest.fixture(scope="session")
def needs_corpora() -> None:
    """For a test that reads mail which nobody here wrote."""
    corpora.need()
