"""A milter that does nothing: what libmilter, pymilter and Postfix cost by themselves.

`python -m tests.bench.nothing skipped|signer SOCKET`. `skipped` is asked for nothing but the end of a message;
`signer` negotiates exactly what postmeter does and throws it away. On pymilter's C module, as postmeter is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import milter

from postmeter.submission.server import ACTIONS, NO_REPLY, STEPS

# mfapi.h SMFIP_NO*: connect, helo, mail, rcpt, body, headers, end of headers, unknown, data.
SKIP_ALL = 0x3FF


def main(variant: str, path: str) -> None:
    os.umask(0)  # Postfix's user connects
    actions, steps = (0, SKIP_ALL) if variant == "skipped" else (ACTIONS, STEPS)
    milter.setconn(f"unix:{path}")
    milter.set_exception_policy(milter.TEMPFAIL)
    if variant == "signer":
        for name, verdict in _VERDICTS.items():
            getattr(milter, f"set_{name}_callback")(_always(verdict))
    milter.register("nothing", negotiate=_negotiator(actions, steps))
    milter.main()


def _negotiator(actions: int, steps: int) -> Callable[[Any, list[int]], int]:
    def negotiate(ctx: milter.milterContext, options: list[int]) -> int:
        options[0], options[1], options[2], options[3] = actions, steps & options[1], 0, 0
        return milter.CONTINUE

    return negotiate


def _always(verdict: int) -> Callable[..., int]:
    return lambda *arguments: verdict


_VERDICTS = {
    "connect": NO_REPLY,
    "envfrom": milter.CONTINUE,
    "envrcpt": NO_REPLY,
    "header": NO_REPLY,
    "eoh": milter.CONTINUE,
    "body": NO_REPLY,
    "eom": milter.CONTINUE,
    "abort": milter.CONTINUE,
    "close": milter.CONTINUE,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
