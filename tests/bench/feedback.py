"""Messages that came back, read: so many a second, beside flufl.bounce and the email package on the same ones.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.feedback [--rounds 5]

CPU time in one process, the median of rounds in which the rows take turns: the reading alone, no spool and no journal.
flufl.bounce, GNU Mailman's reader, tells addresses and no status; it needs the message parsed by email, which its row
has in it and the last row shows alone. It is left out where it is not installed. The collections are those of the
tests; without them, and always as a row of its own, a delivery status as Postfix writes it.
"""

from __future__ import annotations

import argparse
import email
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from email.message import Message

from postmeter.feedback.reading import read
from tests import corpora

POSTFIX = b"""\
Return-Path: <>
From: MAILER-DAEMON@mx.example.net (Mail Delivery System)
To: bounces+token@example.com
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="4XyzAB"

--4XyzAB
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

This is the mail system at host mx.example.net.

I'm sorry to have to inform you that your message could not
be delivered to one or more recipients. It's attached below.

<reader@example.org>: host mail.example.org[192.0.2.7] said: 550 5.1.1
    <reader@example.org>: Recipient address rejected: User unknown (in reply to
    RCPT TO command)

--4XyzAB
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net
X-Postfix-Queue-ID: 4XyzAB
X-Postfix-Sender: rfc822; bounces+token@example.com
Arrival-Date: Sun, 22 Nov 2026 12:00:00 +0000 (UTC)

Final-Recipient: rfc822; reader@example.org
Original-Recipient: rfc822;reader@example.org
Action: failed
Status: 5.1.1
Remote-MTA: dns; mail.example.org
Diagnostic-Code: smtp; 550 5.1.1 <reader@example.org>: Recipient address
    rejected: User unknown

--4XyzAB
Content-Description: Undelivered Message
Content-Type: message/rfc822

From: News <news@example.com>
To: reader@example.org
Subject: News
Message-ID: <1@example.com>

Hello

--4XyzAB--
"""


def peers() -> dict[str, Callable[[bytes], object]]:
    rows: dict[str, Callable[[bytes], object]] = {"postmeter": read}
    if importlib.util.find_spec("flufl") and importlib.util.find_spec("flufl.bounce"):
        failures: Callable[[Message], object] = importlib.import_module("flufl.bounce").all_failures
        rows["flufl.bounce"] = lambda raw: failures(email.message_from_bytes(raw))
    rows["email alone"] = email.message_from_bytes
    return rows


def rate(job: Callable[[bytes], object], messages: Sequence[bytes]) -> float:
    """Messages a second of CPU time."""
    begun = time.process_time()
    for raw in messages:
        job(raw)
    return len(messages) / (time.process_time() - begun)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(argv).rounds
    collections: dict[str, list[bytes]] = {"Postfix's, 2 kB": [POSTFIX.replace(b"\n", b"\r\n")] * 300}
    for corpus in ("bounce-flufl", "bounce-sisimai-odd"):
        if found := [one.path.read_bytes() for one in corpora.messages() if one.corpus == corpus]:
            collections[f"{corpus}, {len(found)} messages"] = found
    print(f"messages a second of one CPU, median of {rounds} rounds")
    for name, messages in collections.items():
        measured: dict[str, list[float]] = {row: [] for row in peers()}
        for _ in range(rounds):
            for row, job in peers().items():
                measured[row].append(rate(job, messages))
        for row, rates in measured.items():
            print(f"  {name:32} {row:14} {statistics.median(rates):8,.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
