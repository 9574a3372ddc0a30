"""Events as JSON to whoever asked for them: batched, signed, in their order, at least once.

Reads the journal from a position of its own for each url, which is saved when a batch was answered with 2xx. What fails
is tried again, at longer and longer intervals, until it is too old; an event that alone is too large for its receiver
is not. Knows nothing of HTTP, and nobody waits for it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import takewhile
from time import monotonic, time
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from postmeter.books import calls
from postmeter.books.backoff import Backoff
from postmeter.books.calls import CallError
from postmeter.config.schema import Webhook
from postmeter.events import Refused, as_json, kind
from postmeter.mail.draft import Figure
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.database import StoreError
from postmeter.store.journal import Journal
from postmeter.store.rows import Entry

once = OnceAMinute(logging.getLogger(__name__))

PREFIX = "webhook:"
"""Of the positions, with the url behind it."""

KINDS = {"quota_warning": "warned", "brake": "braked", "dkim_key": "keychanged"}
"""What is not called as it is in the journal."""

_FIRST, _MOST = 1.0, 600.0  # seconds of rest after a failure
_SMALL = 8192  # octets; who does not take so much takes no events at all just now, and is waited for
_FAR = 10_000  # events behind the saved position that are of no interest; a restart looks at so many once more
_STEP = 1000  # numbers that one look at the journal passes, where there are so many
_COUNTING = 65.0  # seconds from a minute's begin in which its refusals are still counted up

Post: TypeAlias = Callable[[str, bytes, dict[str, str]], int]


class Hook:
    """One url. `now` and `ticks` are clocks, of the day and monotonic."""

    def __init__(
        self,
        hook: Webhook,
        journal: Journal,
        *,
        secret: bytes,
        chance: Callable[[], float],
        post: Post = calls.post,
        now: Callable[[], float] = time,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self._hook, self._journal, self._secret, self._post = hook, journal, secret, post
        self._now, self._ticks = now, ticks
        self._kinds = tuple(dict.fromkeys(KINDS.get(name, name) for name in hook.events))
        self._position = PREFIX + hook.url
        self._rest = Backoff(first=_FIRST, most=_MOST, chance=chance)
        self._batch = hook.batch  # less as long as the receiver says that it was too much
        self._seen = self._saved = -1
        self._posted = False  # something that is not saved yet

    def work(self) -> bool:
        """One call at most; true when there is more to look at."""
        if self._seen < 0:
            self._seen = self._saved = self._start()
        if self._posted or self._seen - self._saved >= _FAR:
            self._save()
        if self._rest.rests(self._ticks()):
            return False
        before, most = self._seen, self._batch
        entries, end = self._next()
        if entries and not self._call(entries):
            return self._batch < most
        self._posted = bool(entries)
        self._seen = end
        if self._posted:
            self._save()
        return bool(entries) or end - before >= _STEP

    def close(self) -> None:
        with suppress(StoreError):
            if self._posted:
                self._save()
        self._journal.close()

    def _start(self) -> int:
        """Behind the last event on first use. Never behind a journal that was put back."""
        saved, last = self._journal.position(self._position), self._journal.last()
        if saved:
            return min(int(saved), last)
        self._journal.record((), positions={self._position: str(last)})
        return last

    def _save(self, **figures: int) -> None:
        counted: dict[Figure, int] = {(name, ()): count for name, count in figures.items()}
        self._journal.record((), figures=counted, positions={self._position: str(self._seen)})
        self._saved, self._posted = self._seen, False

    def _next(self) -> tuple[list[Entry], int]:
        """A batch, and where it ends: before refusals that are still counted up."""
        entries, end = self._journal.of_kinds(self._kinds, after=self._seen, limit=self._batch)
        now = self._now()
        final = list(takewhile(lambda entry: _final(entry, now), entries))
        return final, entries[len(final)].seq - 1 if len(final) < len(entries) else end

    def _call(self, entries: list[Entry]) -> bool:
        body = payload(entries)
        named = calls.headers(body, secret=self._secret, now=self._now())
        try:
            status = self._post(self._hook.url, body, named)
            if status == calls.CONTENT_TOO_LARGE and len(entries) > 1:
                self._batch = len(entries) // 2
                said = "webhook %s: %d events at once were too much"
                once.log(logging.INFO, f"{self._hook.url} large", said, shown(self._hook.url), len(entries))
                return False
            if status == calls.CONTENT_TOO_LARGE and len(body) > _SMALL:
                self._pass_over(entries[0], len(body))
                return True
            why = "" if 200 <= status < 300 else f"answered {status}"
        except CallError as error:
            why = str(error)
        if why:
            self._failed(why)
        else:
            self._rest.succeeded()
            self._batch = min(self._batch + 1, self._hook.batch)
        return not why

    def _pass_over(self, entry: Entry, size: int) -> None:
        """Nothing makes it smaller, and those behind it would wait until it is too old."""
        name = shown(self._hook.url)
        said = "webhook %s: event %s:%d is more than it takes (413), with %d octets: given up"
        once.log(logging.ERROR, f"{self._hook.url} over", said, name, entry.host, entry.seq, size)
        self._seen = entry.seq
        self._save(webhook_failures_total=1, webhook_dropped_total=1)

    def _failed(self, why: str) -> None:
        """Rest; what is too old by now is given up, all of it at once."""
        name = shown(self._hook.url)
        wait = self._rest.failed(self._ticks())
        once.log(logging.WARNING, self._hook.url, "webhook %s: %s; again in %.0f s", name, why, wait)
        dropped = self._drop(self._now() - self._hook.retry_for)
        if dropped:
            once.log(logging.ERROR, f"{self._hook.url} dropped", "webhook %s: %d events were given up", name, dropped)
        self._save(webhook_failures_total=1, **({"webhook_dropped_total": dropped} if dropped else {}))

    def _drop(self, before: float) -> int:
        dropped = 0
        while True:
            entries, end = self._journal.of_kinds(self._kinds, after=self._seen, limit=self._hook.batch)
            stale = list(takewhile(lambda entry: entry.event.time < before, entries))
            dropped += len(stale)
            young = len(stale) < len(entries)
            behind = end if not young else stale[-1].seq if stale else self._seen
            if young or behind == self._seen:
                self._seen = behind
                return dropped
            self._seen = behind


def payload(entries: Iterable[Entry]) -> bytes:
    """`id` is unique over all hosts and the same at each try: whoever keeps it counts nothing twice."""
    text = json.dumps({"events": [_told(entry) for entry in entries]}, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace")  # strict readers refuse half a surrogate pair, from a login that is no UTF-8


def _told(entry: Entry) -> dict[str, Any]:
    names = {theirs: ours for ours, theirs in KINDS.items()}
    said = as_json(entry.event)
    del said["kind"]
    name = names.get(kind(entry.event), kind(entry.event))
    return {"id": f"{entry.host}:{entry.seq}", "event": name, "host": entry.host, "seq": entry.seq, **said}


def _final(entry: Entry, now: float) -> bool:
    """Refusals of one sender, reason and minute are one event that counts up."""
    if not isinstance(entry.event, Refused):
        return True
    return not 0 <= now - entry.event.time // 60 * 60 < _COUNTING


def shown(url: str) -> str:
    """The url as a log may show it: with many services what stands behind the host is a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def forget_others(journal: Journal, urls: Iterable[str]) -> None:
    """Positions of urls that nobody calls any more."""
    stale = set(journal.positions(PREFIX)) - {PREFIX + url for url in urls}
    if stale:
        journal.forget_positions(stale)
