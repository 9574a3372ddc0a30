"""Puts the lines of Postfix's log together: which message each is about, whether it is ours, and what became of whom.

A state machine: lines in, events out, and the lives that changed meanwhile, for somebody to keep. Whether a queue id is
ours it is told by a function. Mail that is not ours gives no events, and is forgotten once that is known. A life begins
with `client=` or `uid=` and ends with `removed`, or when its queue id begins another. Knows nothing of files, journals
of ours or clocks: time is what the lines say, as far as its caller believes them.

A content filter behind the queue gives a message another queue id: `status=sent … queued as NEWID` is no delivery when
a life of that id with the same Message-ID is here. Then NEWID is asked about the recipient, and what the first said
stands only if that says nothing. FILTER_README, pickup(8), qmgr(8), cleanup(8), bounce(8), postsuper(1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile

from postmeter.delivery import word
from postmeter.delivery.ours import Lookup, Ours, Provider
from postmeter.delivery.postfixlog import Line
from postmeter.delivery.shelf import Ciphers, Lately, Shelf, Told
from postmeter.events import Sent
from postmeter.store import veil
from postmeter.store.lives import Key, Life, Recipient

LINGER = 900.0
"""Seconds that a message may turn out to be ours after all: its record waits in the emergency spool, or its first
queue id has yet to say that it handed it over."""

_SLACK = 2.0  # seconds: stamps of a log may be whole seconds
_TRANSFER = 7200.0  # seconds from the first line to the message's end; postconf(5), smtpd_timeout, for each command
_SWEEP = 60.0  # seconds between two looks at what has been waiting for too long
_SLICE = 500  # events and lives of one transaction that such a look may make
_DAY = 86_400.0
_FOREIGN = 20_000  # queue ids known not to be ours; a forgotten one is looked up again
_NO_WORD = "the log tells its end, but not this"
_REUSED = "its queue id was given away before its end was told"
_WAITING = 2_000  # lines kept of one message whose owner is not known


class Correlator:
    """`lifetime` is how long Postfix tries (maximal_queue_lifetime), `forget` how long a life may last."""

    def __init__(
        self, lives: Iterable[Life], *, lookup: Lookup, provider: Provider, lifetime: float, forget: float,
        veiled: Callable[[str], str] = str,
    ) -> None:  # fmt: skip
        """`veiled` gives the keyed hash under which an address may be on record."""
        self._lookup, self._provider, self._veiled = lookup, provider, veiled
        self._lifetime, self._forget = lifetime, forget
        self.lives = Shelf(lives)
        self._foreign: Lately[Key, None] = Lately(_FOREIGN)
        self._ciphers = Ciphers()
        self._told = Told()
        self._swept = 0.0
        self.now = 0.0
        """The time of the log."""
        self.late = False
        """Messages may be ours of which nobody has been told yet."""
        self._acts: dict[str, Callable[[Line], None]] = {
            "client": self._begin,
            "uid": self._begin,
            "message_id": self._name,
            "queued": self._queue,
            "delivery": self._deliver,
            "expired": self._expire,
            "removed": self._remove,
            "milter_reject": self._refuse,
            "rejected": self._refuse,
            "discard": self._discard,
            "hold": self._hold,
            "held": self._hold,
            "released": self._release,
            "notification": self._notify,
        }

    def take(self, line: Line, *, clock: float) -> None:
        """A line read at `clock`, which no line is believed to be ahead of."""
        now = max(self.now, line.time)
        self.now = now if now < clock else clock  # a clock that was stepped back takes it along
        if line.what == "tls":
            self._ciphers.begin(line)
        elif line.queue_id and (act := self._acts.get(line.what)):
            act(line)
        self._sweep()

    def wait(self, clock: float) -> None:
        """The log has been read to its end: nothing happened until now."""
        self.now = clock
        self._sweep()

    def told(self) -> Told:
        """What came of all that was taken since the last time."""
        told, self._told = self._told, Told()
        told.changed, told.gone = self.lives.changes()
        return told

    # --- lines

    def _begin(self, line: Line) -> None:
        """Of mail that postsuper(1) queued again its old life goes on under the new id."""
        self._foreign.forget(line.key)
        old = self.lives.get(line.key)
        if old is not None and old.begun and not old.ended and abs(old.arrival - self._at(line)) <= _SLACK:
            return  # the same line, from another source
        self._give_up(old, _REUSED)
        moved = self.lives.get((line.host, line.instance, line.values.get("orig_id", "")))
        if moved is not None:
            self.lives.drop(moved)
            moved.queue_id, moved.arrival = line.queue_id, self._at(line)
        self._put(moved or Life(*line.key, self._at(line), begun=True))

    def _name(self, line: Line) -> None:
        message_id = line.values.get("message_id", "")
        if (life := self.lives.get(line.key)) is not None and life.shown and life.message_id != message_id:
            self._give_up(life, _REUSED)
            life = None
        life = life or self._new(line)
        others = self.lives.named(message_id)
        life.kin = life.kin or any(other is not life and other.host == life.host for other in others)
        self.lives.rename(life, message_id)

    def _queue(self, line: Line) -> None:
        if (life := self.lives.get(line.key)) is None or life.ended:
            self._give_up(life, "")
            life = self._new(line)
        life.targets = word.count(line.values["nrcpt"])
        if life.reference or self._join(life, line.time):
            self._show(life)
        elif life.kin or life.held or self.late:
            life.shown = life.shown or line.time
            self._put(life)
        else:
            self._disown(life)

    def _deliver(self, line: Line) -> None:
        if (life := self._known(line)) is None:
            return
        if life.reference:
            self._show(life)
            self._tell(life, line)
        else:
            self._keep_line(life, line)

    def _expire(self, line: Line) -> None:
        if (life := self._known(line)) is None:
            return
        if life.kin or not life.reference:
            self._keep_line(life, line)  # recipients may yet turn out to be in it
        for recipient in life.recipients.values():
            if recipient.open():
                for final, (_, provider) in (recipient.finals or {"": ["", ""]}).items():
                    event = word.expired(life, recipient.address, final, line, provider=provider, time=self._at(line))
                    self._told.events.append(event)
                    recipient.finals[final] = ["expired", provider]
                recipient.fallback = None
        self._put(life)

    def _remove(self, line: Line) -> None:
        self._foreign.forget(line.key)
        if (life := self.lives.get(line.key)) is None:
            return
        deleted = line.daemon == "postsuper"
        early = not deleted and any(recipient.open() for recipient in life.recipients.values())  # or it was lost
        if deleted and life.held and life.owed:
            self._told.events.append(word.untaken(life, why="deleted from the hold queue", time=self._at(line)))
            life.told = True
        else:
            self._finish(life, "deleted from the queue" if deleted else _NO_WORD)
        if life.kin or early or (not life.reference and self.late):
            life.ended = self._at(line)
            self._put(life)
        else:
            self.lives.drop(life)

    def _refuse(self, line: Line) -> None:
        """After the end of the message only: before that we have not said anything about it either."""
        if line.what == "milter_reject" and line.values.get("stage") != "END-OF-MESSAGE":
            return
        life = self.lives.get(line.key) or self._new(line)
        if self._join(life, line.time, within=_TRANSFER) and life.first and not life.shown:
            why = line.values.get("reply", "") or line.values.get("text", "")
            self._told.events.append(word.untaken(life, why=why, time=self._at(line)))
        self._disown(life)

    def _discard(self, line: Line) -> None:
        life = self.lives.get(line.key) or self._new(line)
        if line.values.get("stage") != "END-OF-MESSAGE":
            self._put(life)
            return
        if self._join(life, line.time, within=_TRANSFER):
            self._show(life)
            self._finish(life, "a milter had it discarded")
        self._disown(life)

    def _hold(self, line: Line) -> None:
        life = self.lives.get(line.key) or self._new(line)
        life.held = True
        if life.reference or self._join(life, line.time):
            self._show(life)
        self._put(life)

    def _release(self, line: Line) -> None:
        if (life := self.lives.get(line.key)) is not None:
            life.held = life.owed = False
            self._put(life)

    def _notify(self, line: Line) -> None:
        """What bounce(8) writes to the sender has a queue id of its own, and is no mail of ours."""
        key = (line.host, line.instance, line.values.get("new_id", ""))
        if (life := self.lives.get(key)) is not None:
            self.lives.drop(life)
        self._foreign.put(key, None)

    # --- whose it is

    def _known(self, line: Line) -> Life | None:
        """The life that a line is about, if it is ours or may be; one whose first lines were never read, too."""
        key = line.key
        if key in self._foreign:
            return None
        life = self.lives.get(key) or self._new(line)
        if life.reference or life.shown or self._join(life, line.time) or life.kin or self.late:
            return life
        self._disown(life)
        return None

    def _join(self, life: Life, upto: float, *, within: float | None = None) -> bool:
        """Of a life whose beginning was not seen the message may be `within` so many seconds old."""
        if life.reference:
            return True
        arrival = life.arrival if life.arrival <= upto else upto - _TRANSFER  # a clock was stepped back meanwhile
        begin = arrival - _SLACK if life.begun else upto - (within or self._forget)
        ours = self._lookup(life.queue_id, begin, upto + _SLACK)
        if ours is None or (not life.begun and not self._plausible(ours)):
            return ours is not None and self.lives.goes_on(life, ours.reference)
        life.reference, life.login, life.from_domain = ours.reference, ours.login, ours.from_domain
        life.campaign, life.first, life.owed = ours.campaign, ours.first, ours.held
        life.kin = life.kin or not ours.first
        if not ours.discarded:
            life.recipients = {word.name(address): Recipient(address) for address in ours.recipients}
        self._put(life)
        return True

    def _plausible(self, ours: Ours) -> bool:
        """Whether a life whose beginning was not seen can be that message, and no later one under its queue id."""
        return not (ours.bounce or ours.over) and not (ours.first and self.lives.owned(ours.reference))

    def _retry(self, life: Life) -> None:
        """Of a life whose owner is not known: it may be by now."""
        if self._join(life, (life.shown or life.arrival + _TRANSFER)):
            self._show(life)
            self._tell_waiting(life)
            if life.ended:
                self._finish(life, _NO_WORD)

    def _disown(self, life: Life) -> None:
        self.lives.drop(life)
        self._foreign.put(life.key, None)

    def _show(self, life: Life) -> None:
        if not life.shown or life.held:
            life.shown = life.shown or self.now
            self._put(life)
        self._told.shown.add(life.reference)

    # --- what becomes of whom

    def _tell(self, life: Life, line: Line) -> None:
        state = word.STATES.get(line.values.get("status", ""))
        recipient = self._recipient(life, line)
        if recipient is None and life.kin and state:
            self._keep_line(life, line)
        if recipient is None or state is None:
            return
        name, provider = word.name(line.values["to"]), self._provider(line.values)
        secret = veil.is_hashed(recipient.address)
        final = "" if secret or name == word.name(recipient.address) else line.values["to"]
        tls, at = self._ciphers.of(line), self._at(line)
        alone = recipient.finals.keys() <= {name, ""} and (not final or life.targets <= len(life.recipients))
        named = {"final": final, "provider": provider, "tls": tls}
        event = word.delivery(life, recipient.address, line, **named, time=at, alone=alone)
        heir = self._heir(life, line) if isinstance(event, Sent) else None
        recipient.fallback, life.held = None, False
        recipient.finals[name] = ["handed" if heir else state, provider]
        self._put(life)
        if isinstance(event, Sent) and heir is not None:
            self._hand_over(life, heir, recipient, name, event)
        else:
            self._told.events.append(event)

    def _recipient(self, life: Life, line: Line) -> Recipient | None:
        """Whom it is about: as the sender named it, or else as it is now; by its hash where no more is known."""
        for key in ("orig_to", "to"):
            if address := line.values.get(key):
                name = word.name(address)
                found = life.recipients.get(name) or life.recipients.get(self._veiled(name))
                if found is not None:
                    return found
        asked = word.name(line.values.get("orig_to", ""))  # what local(8) forwards is still called as the sender did
        same = (each for each in life.recipients.values() if word.name(each.address) == asked)
        return next(same, None) if asked and not life.first else None

    def _heir(self, life: Life, line: Line) -> Life | None:
        """The life under which this message lives on, on this host, when it was handed to ourselves."""
        if not (new_id := line.values.get("queued_as", "")) and line.daemon != "pipe":
            return None
        found = [
            other
            for other in (self.lives.called(life.host, new_id) if new_id else self.lives.named(life.message_id))
            if other is not life and other.host == life.host and other.reference in ("", life.reference)
            if life.message_id and other.message_id == life.message_id and (new_id or other.arrival >= life.arrival)
        ]
        return max(found, key=lambda other: other.arrival, default=None)

    def _hand_over(self, life: Life, heir: Life, recipient: Recipient, final: str, event: Sent) -> None:
        if not heir.reference:
            heir.reference, heir.login, heir.from_domain = life.reference, life.login, life.from_domain
            heir.campaign, heir.first = life.campaign, False
        heir.kin = True
        asked = heir.recipients.setdefault(final, Recipient(recipient.address))
        if not asked.finals:
            asked.fallback = word.kept(event)
        self._tell_waiting(heir)
        if heir.ended:
            self._finish(heir, _NO_WORD)
        self._put(heir)

    def _tell_waiting(self, life: Life) -> None:
        waiting, life.waiting = life.waiting, []
        for each in waiting:
            line = Line(**each)
            self._acts[line.what](line)

    def _keep_line(self, life: Life, line: Line) -> None:
        life.shown = life.shown or self._at(line)
        if len(life.waiting) < _WAITING:
            life.waiting.append({**line._asdict(), "values": dict(line.values)})
            self._put(life)

    def _finish(self, life: Life, why: str) -> None:
        """No more will be told: what another queue id said stands, and the rest is unknown."""
        if not life.reference or life.told:
            return
        for recipient in life.recipients.values():
            if recipient.fallback is not None:
                self._told.events.append(word.again(recipient.fallback))
                recipient.fallback, recipient.finals = None, {"": ["sent", ""]}
            elif recipient.open() and why:
                self._told.events.append(word.unknown(life, recipient.address, why=why, time=self.now))
                recipient.finals[""] = ["unknown", ""]

    # --- what is kept

    def _new(self, line: Line) -> Life:
        """A life whose beginning was not seen; not kept yet."""
        return Life(*line.key, self._at(line))

    def _put(self, life: Life) -> None:
        self.lives.put(life)
        if (oldest := self.lives.too_many()) is not None:
            self._give_up(oldest, "too many messages were in the queue at a time")

    def _give_up(self, life: Life | None, why: str) -> None:
        if life is not None:
            self._finish(life, why)
            self.lives.drop(life)

    def _sweep(self) -> None:
        """Some at a time, for mail waits while they are written down."""
        if 0 <= self.now - self._swept <= _SWEEP or not self._room():
            return
        for life in takewhile(lambda _: self._room(), self.lives):
            self._look_after(life)
        if self._room():
            self._swept = self.now

    def _room(self) -> bool:
        return len(self._told.events) + self.lives.unsaved() < _SLICE

    def _look_after(self, life: Life) -> None:
        if not life.reference and (life.held or life.shown):
            self._retry(life)
        age = self.now - life.arrival
        if life.reference and not life.ended:
            if age > self._lifetime + _DAY and not life.held and not life.told:
                self._finish(life, "the log tells no end, for longer than Postfix tries")
                life.told = True
                self._put(life)
            over = age > max(self._forget, self._lifetime + _DAY)
        elif life.held:
            over = age > self._forget
        else:
            over = self.now - (life.ended or life.shown or life.arrival + _TRANSFER - LINGER) > LINGER
        if over:
            self._give_up(life, "the log tells no end")

    def _at(self, line: Line) -> float:
        """When it was; nothing happens in the future."""
        return line.time if line.time < self.now else self.now
