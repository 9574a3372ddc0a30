"""Tracked links and an image that tells of opens: the step that changes bodies, and only at the places it records.

Pure but for what it does to the draft. Refuses to know what is shown to whom: a body is one for all recipients. On any
doubt the message, the part or the link stays as it is and the reason is counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TypeAlias

from postmeter.config.schema import Tracking
from postmeter.mail import html, mime
from postmeter.mail.charset import View
from postmeter.mail.coding import Plain
from postmeter.mail.draft import Draft, Step
from postmeter.mail.message import Field
from postmeter.token import Mint
from postmeter.tracking import changes, opens, parts, targets, text
from postmeter.tracking.bulk import is_bulk
from postmeter.tracking.changes import Changes
from postmeter.tracking.parts import AMP, HTML, TEXT, Leaf
from postmeter.tracking.settings import Sections, own_hosts
from postmeter.tracking.targets import Rules

REASONS = parts.OF_MESSAGES + parts.OF_PARTS + targets.REASONS

_ROOM = 8192  # what later steps may add: two signatures, a few fields
_MOST_TAGS = 50_000  # links looked at in a part, tracked or not: half a second; those behind them stay as they are
_ANGLED = re.compile(rb"<([^<>]*)>")

_Judge: TypeAlias = Callable[[Rules, bytes, bool, str], tuple[str, str]]
_KEPT = 2048  # values whose verdict is remembered: the copies of a newsletter share most of their links
_REMEMBERED = 500  # octets of such a value at most: some 3 MB a process for each of three kinds


@dataclass(frozen=True, slots=True)
class _Memory:
    """Verdicts, which are the same each time."""

    values: _Judge
    urls: Callable[[Rules, bytes], tuple[str, str]]
    texts: Callable[[bytes], str]


@dataclass(slots=True)
class _Plan:
    """What is to change in a part."""

    leaf: Leaf
    spots: list[tuple[int, int, str]] = field(default_factory=list)
    """Links that may be tracked: from where to where in the view of the part, and their targets."""
    lines: list[tuple[int, int]] = field(default_factory=list)
    """Of text: where the line of each spot starts, and octets that it may grow by."""
    removed: list[tuple[int, int]] = field(default_factory=list)
    end: int = -1
    """Of a page: where something can be put that shall come last."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is wanted for this message; `clicks` as in `tracking.links`."""

    clicks: str
    opens: bool
    url: str

    def kinds(self) -> frozenset[str]:
        return _KINDS[self.clicks, self.opens]


_TRACKED = {"off": frozenset[str](), "html": frozenset({HTML, AMP}), "html+text": frozenset({HTML, AMP, TEXT})}
_KINDS = {(clicks, opened): kinds | {HTML} if opened else kinds
          for clicks, kinds in _TRACKED.items() for opened in (False, True)}  # fmt: skip


def step(tracking: Tracking, tokens: Mint, *, size_limit: int) -> Step:
    """`size_limit` is Postfix's message_size_limit, 0 for none: no message may outgrow it."""
    sections = Sections(tracking, partial(Rules, own=own_hosts(tracking)))
    kept = lru_cache(maxsize=_KEPT)
    memory = _Memory(kept(Rules.judge), kept(Rules.judge_text), kept(targets.refuse_text))

    def rewrite_links(draft: Draft) -> None:
        if draft.free:
            return
        rules = sections.of(draft.from_domain, draft.message.envelope.login)
        asked = _asked(draft, rules.tracking)
        if not asked.url or not asked.kinds():
            return
        if is_bulk(draft, rules.tracking):
            draft.facts["bulk"] = True
        _Rewrite(draft, rules, asked, memory, tokens, size_limit).run()

    return rewrite_links


def _asked(draft: Draft, tracking: Tracking) -> _Asked:
    """What the configuration says, where the sender did not say otherwise."""
    wishes = draft.wishes
    opened = tracking.opens if wishes.opens is None else wishes.opens
    return _Asked(wishes.clicks or tracking.links, opened, tracking.url or "")


class _Rewrite:
    """One message, from the look at the whole to the changed body."""

    __slots__ = ("_asked", "_draft", "_limit", "_memory", "_off", "_rules", "_skipped", "_tokens", "_unsubscribe")

    def __init__(
        self, draft: Draft, rules: Rules, asked: _Asked, memory: _Memory, tokens: Mint, size_limit: int
    ) -> None:
        self._draft = draft
        self._rules = rules
        self._asked = asked
        self._memory = memory
        self._tokens = tokens
        self._limit = size_limit
        self._unsubscribe: frozenset[str] = frozenset()
        self._off: set[str] = set()
        self._skipped: defaultdict[str, int] = defaultdict(int)

    def run(self) -> None:
        if made := self._made():
            self._commit(made)
        for reason, count in self._skipped.items():
            self._draft.count("rewrite_skipped_total", reason, by=count)
            self._draft.note("links", f"left as it was, {count} time{'s' * (count > 1)}: {reason}")

    def _made(self) -> Changes | None:
        """What is to change; of the decoded parts nothing is held any more when the body is made."""
        leaves = self._leaves()
        if not leaves:
            return None
        self._unsubscribe = _unsubscribe_urls(self._draft.fields)
        plans = self._plans(leaves)
        if sum(len(plan.spots) for plan in plans) > self._rules.tracking.max_links:
            self._leave(parts.TOO_MANY_LINKS)
            return None
        return self._changes(plans)

    def _leave(self, reason: str) -> None:
        """The message stays as it is: what was found about its links no longer matters."""
        self._skipped.clear()
        self._skipped[reason] = 1

    def _leaves(self) -> list[Leaf]:
        """The parts that may change, in the order of the body; none when the message has to stay as it is."""
        draft, kinds = self._draft, self._asked.kinds()
        reason = parts.refuse(draft, self._rules.tracking)
        found = () if reason else mime.leaves(draft.fields, draft.body)
        reason = reason or parts.refuse_structure(draft, found, kinds)
        if reason:
            self._leave(reason)
            return []
        leaves: list[Leaf] = []
        for part in found:
            if part.kind in kinds:
                leaf = parts.opened(draft.body, part)
                if isinstance(leaf, Leaf):
                    leaves.append(leaf)
                else:
                    self._skipped[leaf] += 1
        return leaves

    def _plans(self, leaves: Sequence[Leaf]) -> list[_Plan]:
        """Pages first: what they say must not be tracked is not tracked in text either."""
        pages = [self._page(leaf) for leaf in leaves if leaf.part.kind != TEXT]
        texts = [self._text(leaf) for leaf in leaves if leaf.part.kind == TEXT]
        return sorted([*pages, *texts], key=lambda plan: plan.leaf.part.start)

    def _page(self, leaf: Leaf) -> _Plan:
        view, rules, remembered = leaf.view, self._rules, self._memory.values
        page = html.read(view.octets, most=_MOST_TAGS if self._asked.clicks != "off" else 0)
        plan = _Plan(leaf, end=page.end)
        base, most = _base(view, page), rules.tracking.max_links
        for link in page.links:
            if len(plan.spots) > most:
                break
            start, end = link.value
            value = view.utf8(start, end)
            judge = remembered if len(value) <= _REMEMBERED else Rules.judge
            url, reason = judge(rules, value, view.known, base)
            if link.switches:
                plan.removed += link.switches
                self._off.add(url)
                reason = reason or targets.SWITCHED_OFF
            if reason := reason or self._refuse(html.visible_text(view.octets, link), url):
                self._skipped[reason] += 1
            else:
                plan.spots.append((start, end, url))
        return plan

    def _refuse(self, shown: bytes, url: str) -> str:
        if url in self._unsubscribe:
            return targets.UNSUBSCRIBE
        return self._memory.texts(shown) if len(shown) <= _REMEMBERED else targets.refuse_text(shown)

    def _text(self, leaf: Leaf) -> _Plan:
        plan = _Plan(leaf)
        params = leaf.part.params
        delsp = params.get("format", "").lower() == "flowed" and params.get("delsp", "").lower() == "yes"
        for found in text.urls(leaf.view.octets, delsp=delsp):
            if len(plan.spots) > self._rules.tracking.max_links:
                break
            value = leaf.view.octets[found.start : found.end]
            judge = self._memory.urls if len(value) <= _REMEMBERED else Rules.judge_text
            url, reason = judge(self._rules, value) if found.clear else ("", targets.MALFORMED)
            if not reason and url in self._off:
                reason = targets.SWITCHED_OFF
            if not reason and (url in self._unsubscribe or targets.says_unsubscribe(found.around)):
                reason = targets.UNSUBSCRIBE
            if reason:
                self._skipped[reason] += 1
            else:
                plan.spots.append((found.start, found.end, url))
                plan.lines.append((found.line, found.room))
        return plan

    def _changes(self, plans: Sequence[_Plan]) -> Changes:
        made = Changes(self._draft.body)
        last = parts.shown([plan.leaf.part for plan in plans if plan.leaf.part.kind == HTML])
        tokens = _Tokens(self._draft, self._asked.url, self._tokens, self._rules.tracking.privacy)
        for plan in plans:
            before = tokens.number
            edits = self._tracked(plan, tokens)
            done = [changes.LINKS] * bool(edits) + [changes.SWITCHES] * bool(plan.removed)
            edits += [(start, end, b"") for start, end in plan.removed]
            if plan.leaf.part is last and (added := self._added(plan, tokens, done)):
                edits.append((plan.end, plan.end, added))
            reason = made.make(plan.leaf, sorted(edits), done, tokens.number - before) if edits else ""
            if reason:
                self._skipped[reason] += 1
                tokens.number = before
        return made

    def _tracked(self, plan: _Plan, tokens: _Tokens) -> list[Plain]:
        if plan.leaf.part.kind != TEXT:
            return tokens.links(plan.spots)
        edits: list[Plain] = []
        before, grown = -1, 0
        for (start, end, target), (line, room) in zip(plan.spots, plan.lines, strict=True):
            url = text.closed(tokens.link(target))
            more = len(url) - (end - start)
            before, grown = line, (grown if line == before else 0) + more
            if grown > room:
                grown -= more
                self._skipped[targets.LONG_LINE] += 1
                tokens.number -= 1
            else:
                edits.append((start, end, url))
        return edits

    def _added(self, plan: _Plan, tokens: _Tokens, done: list[str]) -> bytes:
        """What comes at the end of the page that is shown."""
        trapped = self._rules.tracking.honeypot and plan.spots
        if plan.end < 0 and (trapped or self._asked.opens):
            self._skipped[parts.NO_PLACE] += 1
            return b""
        if trapped and opens.within_link(plan.leaf.view.octets, plan.end):
            self._skipped[parts.NO_PLACE] += 1
            trapped = False
        done += [changes.TRAP] * bool(trapped) + [changes.OPENS] * self._asked.opens
        trap = opens.trap(tokens.trap()) if trapped else b""
        return trap + (opens.image(tokens.open()) if self._asked.opens else b"")

    def _commit(self, made: Changes) -> None:
        draft = self._draft
        body = made.body()
        if self._limit and draft.size_with(body) + _ROOM > self._limit:
            self._leave(parts.SIZE_LIMIT)
        elif made.made:
            draft.replace_body(body, tuple(made.made))
            if made.recoded:
                changes.label_message(draft, made.recoded)
            changes.record(draft, made)
            draft.facts["privacy"] = self._rules.tracking.privacy


class _Tokens:
    """The URLs of one message, and the number of the last link."""

    __slots__ = ("_base", "_mint", "_recipient", "_reference", "_url", "number")

    def __init__(self, draft: Draft, base_url: str, mint: Mint, privacy: str) -> None:
        recipients = draft.message.envelope.rcpt_to
        self.number = 0
        self._base = base_url
        self._mint = mint
        self._reference = draft.message.reference
        one = privacy != "totals" and len(recipients) == 1
        self._recipient = mint.pseudonym(recipients[0]) if one else b""
        self._url = mint.link_urls(base_url, reference=self._reference, recipient=self._recipient)

    def link(self, target: str) -> bytes:
        self.number += 1
        return self._url(self.number, target)

    def links(self, spots: Sequence[tuple[int, int, str]]) -> list[Plain]:
        url, first = self._url, self.number + 1
        self.number += len(spots)
        return [(start, end, url(number, target)) for number, (start, end, target) in enumerate(spots, first)]

    def trap(self) -> str:
        return self._url(0, f"{self._base.rstrip('/')}/").decode("ascii")

    def open(self) -> str:
        return self._mint.open_url(self._base, reference=self._reference, recipient=self._recipient)


def _base(view: View, page: html.Page) -> str:
    """What the page's relative links are relative to; empty where they lead nowhere, or who knows where."""
    if page.base is None:
        return ""
    return targets.target_of(view.utf8(*page.base), utf8=view.known)[0]


def _unsubscribe_urls(fields: Sequence[Field]) -> frozenset[str]:
    """The URLs of List-Unsubscribe (RFC 2369 section 2: white space within is not meant)."""
    values = (field.value for field in fields if field.key == b"list-unsubscribe")
    return frozenset(b"".join(url.split()).decode("latin-1") for value in values for url in _ANGLED.findall(value))
