"""Lines of Postfix's log put together: every recipient of ours gets the right words, whatever else is in the log."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.delivery.correlate import LINGER, Correlator
from postmeter.delivery.ours import Ours
from postmeter.delivery.postfixlog import parse
from postmeter.delivery.shelf import Shelf
from postmeter.events import Bounced, Deferred, Event, Expired, Sent, Unknown, Untaken, kind
from postmeter.store.lives import Life

BEGIN = 1_700_000_000.0
DAY = 86_400.0
STEP = 3.0  # seconds from line to line: longer than the slack of a stamp
MX = "relay=mx.example.net[192.0.2.25]:25"
NO_USER = "host mx.example.net[192.0.2.25] said: 550 5.1.1 no such user (in reply to RCPT TO command)"


class Desk:
    """A correlator, its log, and our own record of what was submitted."""

    def __init__(self) -> None:
        self.time, self.host = BEGIN, "mail"
        self.rows: dict[tuple[str, str, str, float], Life] = {}
        self.ours: dict[str, list[Ours]] = {}
        self.events: list[Event] = []
        self.shown: set[str] = set()
        self.asked: list[str] = []
        self.correlator = self.start([])

    def start(self, lives: Iterable[object]) -> Correlator:
        return Correlator(
            lives,  # type: ignore[arg-type]
            lookup=self.lookup, provider=lambda said: "other", lifetime=5 * DAY, forget=14 * DAY,
        )  # fmt: skip

    def lookup(self, queue_id: str, begin: float, end: float) -> Ours | None:
        self.asked.append(queue_id)
        found = [ours for ours in self.ours.get(queue_id, ()) if begin <= ours.time <= end]
        ours = max(found, key=lambda ours: ours.time, default=None)
        return ours and replace(ours, over=set(ours.recipients) <= self.over())

    def over(self) -> set[str]:
        """As the journal would tell."""
        return {event.recipient for event in self.events if isinstance(event, Sent | Bounced | Expired | Unknown)}

    def submit(self, queue_id: str, reference: str, *recipients: str, **more: object) -> Ours:
        ours = Ours(time=self.time, reference=reference, recipients=recipients, **more)  # type: ignore[arg-type]
        self.ours.setdefault(queue_id, []).append(ours)
        return ours

    def say(self, *messages: str, daemon: str = "smtp", pid: int = 7, step: float = STEP) -> list[Event]:
        """Lines as a log has them; what they gave."""
        new: list[Event] = []
        for message in messages:
            self.time += step
            stamp = datetime.fromtimestamp(self.time, UTC).isoformat()
            line = parse(f"{stamp} {self.host} postfix/{daemon}[{pid}]: {message}".encode(), now=self.time)
            assert line is not None
            self.correlator.take(line, clock=self.time)
            told = self.correlator.told()
            new += told.events
            self.shown |= told.shown
            for key in told.gone:
                self.rows.pop(key, None)
            self.rows |= {(*life.key, life.arrival): life for life in told.changed}
        self.events += new
        return new

    def saved(self) -> set[tuple[str, str, str, float]]:
        """The lives as the journal has them: by key and arrival."""
        return {*self.rows}

    def begin(self, queue_id: str, message_id: str = "<m@example.com>") -> None:
        self.say(f"{queue_id}: client=localhost[127.0.0.1]", daemon="submission/smtpd")
        self.say(f"{queue_id}: message-id={message_id}", daemon="cleanup")

    def queue(self, queue_id: str) -> None:
        self.say(f"{queue_id}: from=<alice@example.com>, size=400, nrcpt=1 (queue active)", daemon="qmgr")

    def take(self, queue_id: str, reference: str, *recipients: str, message_id: str = "<m@example.com>") -> None:
        self.begin(queue_id, message_id)
        self.submit(queue_id, reference, *recipients)
        self.queue(queue_id)

    def remove(self, queue_id: str) -> list[Event]:
        return self.say(f"{queue_id}: removed", daemon="qmgr")


def attempt(queue_id: str, to: str, status: str, text: str = "250 ok", *, delay: float = 1, more: str = "") -> str:
    dsn = {"sent": "2.0.0", "deferred": "4.4.1", "bounced": "5.1.1"}[status]
    took = f"delay={delay:g}, delays=0.1/0/0.5/0.4"
    return f"{queue_id}: to=<{to}>, {more}{MX}, {took}, dsn={dsn}, status={status} ({text})"


def kinds(events: Sequence[Event]) -> list[str]:
    return [kind(event) for event in events]


# --- any interleaving of several messages


@dataclass(frozen=True)
class Mail:
    """A message as a test makes it up: every attempt for each recipient, and how it ends."""

    ours: bool
    attempts: tuple[tuple[str, ...], ...]
    end: str  # removed | expired | lost
    filtered: bool


statuses = st.lists(st.just("deferred"), max_size=2).flatmap(
    lambda tries: st.sampled_from([(), ("sent",), ("bounced",)]).map(lambda last: (*tries, *last))
)
mails = st.builds(
    Mail,
    ours=st.booleans(),
    attempts=st.lists(statuses, min_size=1, max_size=3).map(tuple),
    end=st.sampled_from(["removed", "removed", "expired", "lost"]),
    filtered=st.booleans(),
)


@dataclass
class Script:
    """What is written to the log about a message, in its order, and what should come of it."""

    steps: list[str] = field(default_factory=list)
    expected: dict[str, list[str]] = field(default_factory=dict)


def write(mail: Mail, number: int, queue_id: str, chance: random.Random) -> Script:
    """The oracle: knows what was made up, and nothing of how it is read."""
    script = Script()
    people = [f"r{nth}@m{number}.example" for nth, _ in enumerate(mail.attempts)]
    first = f"<{number}@example.com>"
    script.steps += [f"{queue_id}: client=c[192.0.2.1]", f"{queue_id}: message-id={first}", f"SUBMIT {number}"]
    script.steps.append(f"{queue_id}: from=<a@example.com>, size=4, nrcpt=1 (queue active)")
    at = queue_id
    handed: list[str] = []
    if mail.filtered:
        at = f"{0xF00000 + number:X}"
        script.steps += [f"{at}: client=localhost[127.0.0.1]", f"{at}: message-id={first}"]
        handed = [attempt(queue_id, who, "sent", f"250 2.0.0 Ok: queued as {at}") for who in people]
        handed.append(f"{queue_id}: removed")
    plan = list(zip(people, mail.attempts, strict=True))
    tries = [[attempt(at, who, does, delay=nth) for nth, does in enumerate(each, 1)] for who, each in plan]
    rest = merge(tries, chance)
    if mail.filtered:
        rest = [f"{at}: from=<a@example.com>, size=4, nrcpt=1 (queue active)", *rest]
    rest += {"removed": [f"{at}: removed"], "lost": []}.get(
        mail.end, [f"{at}: from=<a@example.com>, status=expired, returned to sender", f"{at}: removed"]
    )
    script.steps += merge([rest, handed], chance)
    for who, each in plan:
        script.expected[who] = [*each, *ending(mail, each)] if mail.ours else []
    return script


def ending(mail: Mail, each: tuple[str, ...]) -> list[str]:
    if each and each[-1] != "deferred":
        return []
    if mail.filtered and not each:  # the filter's own word stands where nothing else was said
        return {"removed": ["sent"], "expired": ["expired"], "lost": []}[mail.end]
    return {"removed": ["unknown"], "expired": ["expired"], "lost": [] if mail.filtered else ["unknown"]}[mail.end]


def merge(parts: Sequence[Sequence[str]], chance: random.Random) -> list[str]:
    """Any order that keeps each part's own."""
    left = [list(part) for part in parts if part]
    merged = []
    while left:
        part = chance.choice(left)
        merged.append(part.pop(0))
        left = [each for each in left if each]
    return merged


@given(st.lists(st.lists(mails, min_size=1, max_size=3), min_size=1, max_size=4), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_interleaving_gives_each_recipient_its_words(slots: list[list[Mail]], seed: int) -> None:
    """Each slot is a queue id, used again and again; each restart goes on from what was written down."""
    chance = random.Random(seed)
    desk, expected, queues, made = Desk(), dict[str, list[str]](), list[list[str]](), list[tuple[str, Mail]]()
    for slot, queued in enumerate(slots):
        steps: list[str] = []
        queue_id = f"{0xA00000 + slot:X}"
        for mail in queued:
            script = write(mail, len(made), queue_id, chance)
            steps, expected = steps + script.steps, expected | script.expected
            made.append((queue_id, mail))
        queues.append([*steps, f"{queue_id}: client=c[192.0.2.1]"])  # the next one shows that an end was lost
    for step in merge(queues, chance):
        if step.startswith("SUBMIT "):
            queue_id, mail = made[int(step[7:])]
            people = [f"r{nth}@m{step[7:]}.example" for nth, _ in enumerate(mail.attempts)]
            if mail.ours:
                desk.submit(queue_id, f"{int(step[7:]):016x}", *people)
            continue
        daemon = "qmgr" if ": from=" in step or ": removed" in step else "cleanup" if ": message-id" in step else "smtp"
        desk.say(step, daemon="smtpd" if ": client=" in step else daemon)
        desk.correlator = restarted(desk) if chance.random() < 0.1 else desk.correlator
    found: dict[str, list[str]] = {who: [] for who in expected}
    for event in desk.events:
        assert isinstance(event, Sent | Deferred | Bounced | Expired | Unknown)
        found[event.recipient].append(kind(event))
        assert event.reference == f"{int(event.recipient.partition('@m')[2].partition('.')[0]):016x}"
    assert found == expected
    assert len({event.source for event in desk.events}) == len(desk.events)


def restarted(desk: Desk) -> Correlator:
    new = desk.start([replace(life) for life in desk.correlator.lives])
    new.now = desk.time
    return new


# --- one thing each


def test_a_delivery_tells_everything_that_the_line_tells() -> None:
    desk = Desk()
    desk.take("A00001", "aa", "Bob@Example.NET")
    tls = "Trusted TLS connection established to mx.example.net[192.0.2.25]:25: TLSv1.3 with cipher TLS_AES_256"
    desk.say(f"{tls} (256/256 bits)", step=0.5)
    [event] = desk.say(attempt("A00001", "bob@example.net", "sent"), step=0.5)
    assert isinstance(event, Sent)
    assert (event.recipient, event.final, event.dsn, event.text) == ("Bob@Example.NET", "", "2.0.0", "250 ok")
    assert (event.delay, event.delays) == (1.0, (0.1, 0.0, 0.5, 0.4))
    assert event.relay == "mx.example.net[192.0.2.25]:25"
    assert event.tls == "Trusted TLSv1.3 TLS_AES_256"
    assert desk.remove("A00001") == []
    assert desk.shown == {"aa"}


def test_only_the_other_side_at_rcpt_can_make_a_bounce_hard() -> None:
    desk = Desk()
    desk.take("A00001", "aa", "a@example.net", "b@example.net")
    local = "A00001: to=<b@example.net>, relay=local, delay=1, delays=0/0/0/1, dsn=5.1.1, status=bounced (unknown user)"
    found = desk.say(attempt("A00001", "a@example.net", "bounced", NO_USER), local)
    assert [event.hard for event in found if isinstance(event, Bounced)] == [True, False]


def test_an_alias_is_told_of_under_the_name_that_the_sender_used() -> None:
    desk = Desk()
    desk.take("A00001", "aa", "all@example.com")
    [event] = desk.say(attempt("A00001", "bob@example.net", "sent", more="orig_to=<all@example.com>, "))
    assert isinstance(event, Sent)
    assert (event.recipient, event.final) == ("all@example.com", "bob@example.net")


def test_a_copy_that_postfix_sends_by_itself_is_nobodys_delivery() -> None:
    """always_bcc adds recipients of which the sender knows nothing."""
    desk = Desk()
    desk.take("A00001", "aa", "bob@example.net")
    assert desk.say(attempt("A00001", "archive@example.com", "sent")) == []


def test_a_message_that_was_never_ours_is_asked_about_once_and_forgotten() -> None:
    desk = Desk()
    desk.begin("A00001")
    desk.queue("A00001")
    desk.say(*[attempt("A00001", f"{nth}@example.net", "sent") for nth in range(50)])
    assert desk.asked == ["A00001"]
    assert list(desk.correlator.lives) == []


def test_a_record_that_comes_late_is_joined_and_one_that_does_not_is_given_up() -> None:
    desk = Desk()
    desk.correlator.late = True
    for queue_id in ("A00001", "A00002"):
        desk.begin(queue_id, f"<{queue_id}>")
        at = desk.time
        desk.queue(queue_id)
        desk.say(attempt(queue_id, "bob@example.net", "sent"))
        desk.remove(queue_id)
    assert desk.events == []
    desk.submit("A00002", "bb", "bob@example.net")
    desk.ours["A00002"][0] = replace(desk.ours["A00002"][0], time=at)
    desk.correlator.wait(desk.time + 120)
    assert kinds(desk.correlator.told().events) == ["sent"]
    desk.correlator.wait(desk.time + 2 * LINGER)
    desk.correlator.wait(desk.time + 4 * LINGER)
    assert list(desk.correlator.lives) == []


def test_a_later_milter_that_refuses_makes_it_untaken() -> None:
    desk = Desk()
    desk.begin("A00001")
    desk.submit("A00001", "aa", "bob@example.net")
    reject = "A00001: milter-reject: END-OF-MESSAGE from c[192.0.2.1]: 5.7.1 no; from=<a@example.com> to=<b@b.c>"
    [event] = desk.say(reject, daemon="cleanup")
    assert isinstance(event, Untaken)
    assert (event.reference, event.recipients) == ("aa", ("bob@example.net",))
    assert "5.7.1 no" in event.why


def test_a_recipient_that_a_milter_refused_leaves_the_message_taken() -> None:
    desk = Desk()
    desk.begin("A00001")
    assert desk.say("A00001: milter-reject: RCPT from c[192.0.2.1]: 550 5.7.1 no; from=<a@b.c>", daemon="smtpd") == []
    desk.submit("A00001", "aa", "bob@example.net")
    desk.queue("A00001")
    assert kinds(desk.say(attempt("A00001", "bob@example.net", "sent"))) == ["sent"]


def test_what_bounce_writes_to_the_sender_is_no_mail_of_ours() -> None:
    desk = Desk()
    desk.take("A00001", "aa", "bob@example.net")
    desk.say(attempt("A00001", "bob@example.net", "bounced", NO_USER))
    desk.say("B00001: message-id=<bounce@mail>", daemon="cleanup")
    desk.say("A00001: sender non-delivery notification: B00001", daemon="bounce")
    desk.submit("B00001", "bb", "alice@example.com", bounce=True)
    desk.queue("B00001")
    assert desk.say(attempt("B00001", "alice@example.com", "sent")) == []


def test_requeued_mail_goes_on_under_its_new_queue_id() -> None:
    desk = Desk()
    desk.take("A00001", "aa", "a@example.net", "b@example.net")
    desk.say(attempt("A00001", "a@example.net", "sent"), attempt("A00001", "b@example.net", "deferred"))
    desk.say("A00001: requeued", daemon="postsuper")
    desk.say("B00001: uid=103 from=<alice@example.com> orig_id=A00001", daemon="pickup")
    desk.say("B00001: message-id=<m@example.com>", daemon="cleanup")
    desk.queue("B00001")
    assert kinds(desk.say(attempt("B00001", "b@example.net", "sent", delay=90))) == ["sent"]
    assert desk.remove("B00001") == []


@pytest.mark.parametrize(("held", "let_go", "told"), [(True, False, "untaken"), (True, True, "unknown"),
                                                      (False, False, "unknown")])  # fmt: skip
def test_what_we_held_and_a_person_deleted_was_not_taken(held: bool, let_go: bool, told: str) -> None:
    """What left the hold queue, or somebody else put there, was charged; whether anybody got it, the log must tell."""
    desk = Desk()
    desk.begin("A00001")
    desk.submit("A00001", "aa", "a@example.net", "b@example.net", held=held)
    desk.say("A00001: milter-hold: END-OF-MESSAGE from c[192.0.2.1]: by a milter; from=<>", daemon="cleanup")
    if let_go:
        desk.say("A00001: released from hold", daemon="postsuper")
        desk.say("A00001: placed on hold", daemon="postsuper")
    events = desk.say("A00001: removed", daemon="postsuper")
    assert set(kinds(events)) == {told}
    named = [one for event in events if isinstance(event, Untaken) for one in event.recipients]
    named += [event.recipient for event in events if isinstance(event, Unknown)]
    assert named == ["a@example.net", "b@example.net"]
    assert list(desk.correlator.lives) == []


def test_what_is_said_of_held_mail_that_was_deleted_is_said_once() -> None:
    """Although another message has its Message-ID, so that it is remembered for a while."""
    desk = Desk()
    desk.take("A00002", "bb", "c@example.net")
    desk.begin("A00001")
    desk.submit("A00001", "aa", "a@example.net", held=True)
    desk.say("A00001: milter-hold: END-OF-MESSAGE from c[192.0.2.1]: by a milter; from=<>", daemon="cleanup")
    assert kinds(desk.say("A00001: removed", daemon="postsuper")) == ["untaken"]
    desk.remove("A00002")
    assert desk.say("A00009: removed", step=10 * LINGER) == []


def test_a_pipe_filter_that_sends_it_again_is_no_delivery_and_a_pipe_that_delivers_is() -> None:
    desk = Desk()
    desk.take("A00001", "aa", "a@example.net")
    desk.say("B00001: uid=103 from=<alice@example.com>", daemon="pickup")
    desk.say("B00001: message-id=<m@example.com>", daemon="cleanup")
    desk.queue("B00001")
    piped = "relay=filter, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (delivered via filter service)"
    assert desk.say(f"A00001: to=<a@example.net>, {piped}", daemon="pipe") == []
    assert kinds(desk.say(attempt("B00001", "a@example.net", "bounced", NO_USER))) == ["bounced"]
    desk.take("A00002", "bb", "c@example.net", message_id="<other@example.com>")
    assert kinds(desk.say(f"A00002: to=<c@example.net>, {piped}", daemon="pipe")) == ["sent"]


def test_a_campaign_that_gives_all_its_mail_one_message_id_costs_no_more_for_that() -> None:
    """Else each message is held against each other one: eight thousand of them took a minute."""
    shelf = Shelf([Life("mail", "postfix", f"{number:X}", float(number), message_id="<m@x>") for number in range(1000)])
    assert 0 < len(shelf.named("<m@x>")) <= 200
    desk = Desk()
    for number in range(300):
        desk.take(f"{0xA00000 + number:X}", f"r{number}", "bob@example.net")
    desk.begin("F00000")
    for number in range(300):
        desk.begin(f"{0xB00000 + number:X}")
    desk.say(attempt("A00000", "bob@example.net", "sent", "250 2.0.0 Ok: queued as F00000"))
    assert not desk.events  # the oldest of all is followed all the same
    assert kinds(desk.say(attempt("F00000", "bob@example.net", "bounced"))) == ["bounced"]


steps = st.tuples(st.sampled_from(["put", "rename", "own", "drop"]), st.integers(0, 5), st.sampled_from("abc"))


@given(st.lists(steps, max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_shelf_finds_what_a_look_at_every_life_would_find(done: list[tuple[str, int, str]]) -> None:
    """Two lives are of each of three queue ids. To look at all for each line took a minute for a long queue."""
    lives = [Life("mail", "postfix", f"{number % 3}", float(number)) for number in range(6)]
    shelf = Shelf(())
    for what, number, name in done:
        life = lives[number]
        if what == "rename":
            shelf.rename(life, name)
        elif what == "drop":
            shelf.drop(life)
        else:
            life.reference = life.reference or (name if what == "own" else "")
            shelf.put(life)
    for name in "abc":
        assert shelf.owned(name) == any(life.reference == name for life in shelf)
        assert {life.key for life in shelf.named(name)} == {life.key for life in shelf if life.message_id == name}
    for life in shelf:
        assert shelf.called("mail", life.queue_id) == [life]


def test_another_servers_queue_id_is_just_its_words() -> None:
    desk = Desk()
    desk.take("B00001", "bb", "z@example.net", message_id="<another@example.com>")
    desk.take("A00001", "aa", "a@example.net")
    assert kinds(desk.say(attempt("A00001", "a@example.net", "sent", "250 Ok: queued as B00001"))) == ["sent"]


def test_a_word_that_comes_behind_the_end_is_heard() -> None:
    """Log daemons that take lines from several sockets, or over a network, change their order."""
    desk = Desk()
    desk.take("A00001", "aa", "a@example.net", "b@example.net")
    desk.say(attempt("A00001", "a@example.net", "sent"))
    assert kinds(desk.remove("A00001")) == ["unknown"]
    (late,) = desk.say(attempt("A00001", "b@example.net", "bounced", NO_USER))
    assert isinstance(late, Bounced)
    assert late.hard
    desk.time += 2 * LINGER
    desk.begin("A00002")
    assert {life.queue_id for life in desk.correlator.lives} == {"A00002"}


def test_mail_that_was_held_is_taken_and_waits_as_long_as_it_likes() -> None:
    desk = Desk()
    desk.begin("A00001")
    desk.submit("A00001", "aa", "a@example.net")
    desk.say("A00001: milter-hold: END-OF-MESSAGE from c[192.0.2.1]: by a milter; from=<>", daemon="cleanup")
    assert desk.shown == {"aa"}
    assert desk.correlator.lives.queue() == {("held", "other"): (1, BEGIN + STEP)}
    desk.correlator.wait(desk.time + 10 * DAY)
    assert desk.correlator.told().events == []


def test_what_smtpd_put_on_hold_before_its_end_is_joined_afterwards() -> None:
    desk = Desk()
    desk.say("A00001: client=c[192.0.2.1]", daemon="smtpd")
    desk.say("A00001: hold: RCPT from c[192.0.2.1]: <b>: ACTION; from=<>", daemon="smtpd")
    desk.submit("A00001", "aa", "a@example.net")
    desk.say("A00001: message-id=<m@example.com>", daemon="cleanup")
    desk.correlator.wait(desk.time + 120)
    assert desk.correlator.told().shown == {"aa"}


def test_mail_without_an_end_is_unknown_a_day_after_postfix_gave_up() -> None:
    desk = Desk()
    desk.take("A00001", "aa", "a@example.net", "b@example.net")
    desk.say(attempt("A00001", "a@example.net", "sent"))
    desk.correlator.wait(desk.time + 5.5 * DAY)
    assert desk.correlator.told().events == []
    desk.correlator.wait(desk.time + 6.5 * DAY)
    [event] = desk.correlator.told().events
    assert isinstance(event, Unknown)
    assert event.recipient == "b@example.net"
    desk.correlator.wait(desk.time + 15 * DAY)
    assert desk.correlator.told().gone
    assert list(desk.correlator.lives) == []


def test_a_log_that_begins_in_the_middle_is_joined_by_queue_id() -> None:
    desk = Desk()
    desk.submit("A00001", "aa", "a@example.net")
    assert kinds(desk.say(attempt("A00001", "a@example.net", "deferred"))) == ["deferred"]


@pytest.mark.parametrize(
    ("queue_id", "host", "told"),
    [
        ("4bX3z91Qz1zz", "other", ["deferred", "sent"]),
        ("4bX3z91Qz1zz", "mail", ["deferred", "sent"]),
        ("A00001", "other", ["deferred", "unknown"]),  # short ones are other hosts' too
    ],
)
@pytest.mark.parametrize("restarts", [True, False])
def test_a_message_outlives_the_name_of_its_host(queue_id: str, host: str, told: list[str], restarts: bool) -> None:
    """A container that is made anew has another, and its queue is the same."""
    desk = Desk()
    desk.take(queue_id, "aa", "a@example.net")
    desk.say(attempt(queue_id, "a@example.net", "deferred"))
    desk.host = host
    if restarts:
        desk.queue(queue_id)
    desk.say(attempt(queue_id, "a@example.net", "sent", delay=9))
    desk.remove(queue_id)
    desk.correlator.wait(desk.time + 7 * DAY)
    desk.events += desk.correlator.told().events
    assert kinds(desk.events) == told
    assert list(desk.correlator.lives) == [] or told[-1] == "unknown"


def test_a_life_that_goes_on_elsewhere_is_in_one_place_only() -> None:
    """One of which the log told nothing but a delivery, before its host got another name."""
    desk = Desk()
    desk.submit("4bX3z91Qz1zz", "aa", "a@example.net")
    assert kinds(desk.say(attempt("4bX3z91Qz1zz", "a@example.net", "deferred"))) == ["deferred"]
    desk.host = "other"
    desk.say("4bX3z91Qz1zz: message-id=<m@example.com>", daemon="cleanup")
    saved = desk.saved()
    desk.queue("4bX3z91Qz1zz")
    assert len(saved) == 2
    assert len(desk.saved()) == 1
    desk.say(attempt("4bX3z91Qz1zz", "a@example.net", "sent", delay=9))
    desk.remove("4bX3z91Qz1zz")
    assert desk.saved() == set()
    desk.begin("4bX3z91Qz2zz", "<m@example.com>")
    assert [life.queue_id for life in desk.correlator.lives] == ["4bX3z91Qz2zz"]


def test_another_instance_s_message_of_that_id_is_another() -> None:
    desk = Desk()
    desk.take("4bX3z91Qz1zz", "aa", "a@example.net")
    foreign = attempt("4bX3z91Qz1zz", "a@example.net", "sent")
    line = parse(f"{datetime.fromtimestamp(desk.time, UTC).isoformat()} other relay/smtp[7]: {foreign}".encode(),
                 now=desk.time, names=("postfix", "relay"))  # fmt: skip
    assert line is not None
    desk.correlator.take(line, clock=desk.time)
    assert desk.correlator.told().events == []
    assert kinds(desk.say(attempt("4bX3z91Qz1zz", "a@example.net", "sent"))) == ["sent"]


def test_a_stamp_of_the_future_ages_nobody() -> None:
    desk = Desk()
    desk.take("A00001", "aa", "a@example.net")
    line = parse(b"2199-01-01T00:00:00+00:00 mail postfix/qmgr[7]: B00001: removed", now=desk.time)
    assert line is not None
    desk.correlator.take(line, clock=desk.time)
    assert desk.correlator.told().events == []


def test_a_clock_that_was_stepped_back_does_not_stop_time() -> None:
    """The machine began in 2030, say, until its clock was set: what waits must not wait until then."""
    desk = Desk()
    desk.correlator.wait(desk.time + 1000 * DAY)
    desk.correlator.wait(desk.time)
    assert desk.correlator.now == desk.time
    desk.take("A00001", "aa", "a@example.net")
    desk.say(attempt("A00001", "a@example.net", "deferred"))
    desk.correlator.wait(desk.time + 6.5 * DAY)
    assert kinds(desk.correlator.told().events) == ["unknown"]


def test_a_message_that_came_in_while_the_clock_was_stepped_back_is_ours() -> None:
    desk = Desk()
    desk.begin("A00001")
    desk.time -= 600
    desk.submit("A00001", "aa", "bob@example.net")
    desk.queue("A00001")
    assert kinds(desk.say(attempt("A00001", "bob@example.net", "sent"))) == ["sent"]


def test_a_refusal_without_its_beginning_is_not_of_an_old_message() -> None:
    """Short queue ids come again: what was charged days ago is not given back for it."""
    desk = Desk()
    desk.submit("A00001", "aa", "bob@example.net")
    desk.time += 2 * DAY
    reject = "A00001: milter-reject: END-OF-MESSAGE from c[192.0.2.1]: 5.7.1 no; from=<a@example.com> to=<b@b.c>"
    assert desk.say(reject, daemon="cleanup") == []
    discard = "A00001: milter-discard: END-OF-MESSAGE from c[192.0.2.1]: milter triggers DISCARD action;"
    assert desk.say(discard, daemon="cleanup") == []


def test_what_an_alias_forwards_is_followed_to_its_end() -> None:
    """local(8) keeps the name that the sender used; forward.c."""
    desk = Desk()
    desk.take("A00001", "aa", "sales@example.org")
    desk.say("B00001: message-id=<m@example.com>", daemon="cleanup")
    desk.queue("B00001")
    local = "relay=local, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (forwarded as B00001)"
    assert desk.say(f"A00001: to=<bob@mail>, orig_to=<sales@example.org>, {local}", daemon="local") == []
    desk.remove("A00001")
    refused = attempt("B00001", "bob@far.example", "bounced", NO_USER, more="orig_to=<sales@example.org>, ")
    [event] = desk.say(refused)
    assert isinstance(event, Bounced)
    assert (event.recipient, event.final) == ("sales@example.org", "bob@far.example")
    assert desk.remove("B00001") == []


def test_lines_read_again_from_another_source_end_no_life() -> None:
    """From a file, and then the same from the systemd journal, whose stamps are finer."""
    desk = Desk()
    begun = desk.time
    desk.take("A00001", "aa", "a@example.net")
    desk.say(attempt("A00001", "a@example.net", "deferred"))
    desk.time = begun + 0.4
    desk.begin("A00001")
    desk.queue("A00001")
    assert kinds(desk.say(attempt("A00001", "a@example.net", "deferred"))) == ["deferred"]
    desk.time += 4000
    desk.say(attempt("A00001", "a@example.net", "sent", delay=4000))
    desk.remove("A00001")
    assert kinds(desk.events) == ["deferred", "deferred", "sent"]


def test_one_dead_address_behind_an_alias_makes_no_hard_bounce_of_it() -> None:
    """Others behind it got the message: to suppress the alias would take it from them."""
    desk = Desk()
    desk.take("A00001", "aa", "all@example.org")
    alias = "orig_to=<all@example.org>, "
    desk.say(attempt("A00001", "a@example.net", "sent", more=alias))
    [event] = desk.say(attempt("A00001", "b@example.net", "bounced", NO_USER, more=alias))
    assert isinstance(event, Bounced)
    assert not event.hard


@pytest.mark.parametrize(("targets", "hard"), [(2, False), (1, True)])
def test_a_dead_address_that_is_told_of_first_is_not_the_whole_alias(targets: int, hard: bool) -> None:
    """Postfix writes down who was refused at RCPT before it hands the message over for the others."""
    desk = Desk()
    desk.begin("A00001")
    desk.submit("A00001", "aa", "all@example.org")
    desk.say(f"A00001: from=<alice@example.com>, size=400, nrcpt={targets} (queue active)", daemon="qmgr")
    alias = "orig_to=<all@example.org>, "
    [event] = desk.say(attempt("A00001", "b@example.net", "bounced", NO_USER, more=alias))
    assert isinstance(event, Bounced)
    assert event.hard is hard


def test_beside_an_alias_of_several_a_dead_address_is_hard_under_its_own_name() -> None:
    desk = Desk()
    desk.begin("A00001")
    desk.submit("A00001", "aa", "all@example.org", "b@example.net")
    desk.say("A00001: from=<alice@example.com>, size=400, nrcpt=3 (queue active)", daemon="qmgr")
    [event] = desk.say(attempt("A00001", "b@example.net", "bounced", NO_USER))
    assert isinstance(event, Bounced)
    assert event.hard


@pytest.mark.parametrize("number", ["", "-1", "9" * 5000, "\u0663"])
def test_a_number_of_recipients_that_is_none_tells_nothing(number: str) -> None:
    desk = Desk()
    desk.begin("A00001")
    desk.submit("A00001", "aa", "a@example.net")
    desk.say(f"A00001: from=<alice@example.com>, size=400, nrcpt={number} (queue active)", daemon="qmgr")
    [event] = desk.say(attempt("A00001", "a@example.net", "bounced", NO_USER))
    assert isinstance(event, Bounced)
    assert event.hard


def test_what_postfix_has_taken_in_but_not_yet_looked_at_is_known() -> None:
    desk = Desk()
    desk.begin("A00001")
    assert desk.correlator.lives.coming() == {"A00001"}
    desk.say("A00001: milter-reject: END-OF-MESSAGE from c[192.0.2.1]: 4.7.1 no; from=<a@b.c>", daemon="cleanup")
    assert desk.correlator.lives.coming() == set()


@pytest.mark.parametrize(
    ("line", "daemon"),
    [
        ("to=<bob@example.net>, relay=dovecot, delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, status=sent "
         "(delivered via dovecot service (delivery via /usr/lib/dovecot/deliver))", "pipe"),
        ("to=<bob@example.net>, relay=mx[private/dovecot-lmtp], delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, status=sent "
         "(250 2.0.0 <bob@example.net> +Kx9AbCdE Saved)", "lmtp"),
        ("to=<bob@example.net>, relay=127.0.0.1[127.0.0.1]:10024, conn_use=2, delay=0.1, delays=0/0/0/0.1, dsn=2.7.0, "
         "status=sent (250 2.7.0 Ok, discarded, id=04852-01 - spam)", "smtp"),
        ("to=<BOB@Example.NET.>, relay=virtual, delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, status=sent "
         "(delivered to maildir)", "virtual"),
        ("to=<bob@example.net>, relay=none, delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, status=sent "
         "(example.net)", "discard"),
    ],
)  # fmt: skip
def test_every_way_of_delivery_is_one(line: str, daemon: str) -> None:
    desk = Desk()
    desk.take("A00001", "aa", "bob@example.net")
    assert kinds(desk.say(f"A00001: {line}", daemon=daemon)) == ["sent"]
    assert desk.remove("A00001") == []


def test_a_filter_that_speaks_smtp_is_followed_through_another_instance() -> None:
    """amavis: its answer quotes the server behind it."""
    desk = Desk()
    desk.take("A00001", "aa", "用户@例子.广告", "bob@example.net")
    desk.say(
        "B00001: client=localhost[127.0.0.1], orig_queue_id=A00001, orig_client=c[192.0.2.1]",
        daemon="10025/smtpd",
    )
    desk.say("B00001: message-id=<m@example.com>", daemon="cleanup")
    desk.queue("B00001")
    said = "250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as B00001"
    assert desk.say(attempt("A00001", "用户@例子.广告", "sent", said)) == []
    assert desk.say(attempt("A00001", "bob@example.net", "sent", said)) == []
    desk.remove("A00001")
    assert kinds(desk.say(attempt("B00001", "用户@例子.广告", "bounced", NO_USER))) == ["bounced"]
    assert kinds(desk.say(attempt("B00001", "bob@example.net", "sent"))) == ["sent"]
    assert desk.remove("B00001") == []


SAID = {
    "smtpd": "{}: client=c[192.0.2.1]",
    "cleanup": "{}: message-id=<m@example.com>",
    "qmgr": "{}: from=<>, size=1, nrcpt=1 (queue active)",
    "smtp": "{}: to=<a@b.c>, relay=x, delay=1, delays=1/1/1/1, dsn=2.0.0, status=sent (queued as A00002)",
    "lmtp": "{}: to=<a@b.c>, relay=x, delay=, delays=1/1/1, dsn=, status=bounced ()",
    "qmgr/1": "{}: from=<>, status=expired, returned to sender",
    "qmgr/2": "{}: removed",
    "cleanup/1": "{}: milter-reject: END-OF-MESSAGE from c[192.0.2.1]: 5.7.1 no",
    "cleanup/2": "{}: milter-hold: END-OF-MESSAGE from c[192.0.2.1]: x",
    "cleanup/3": "{}: milter-discard: END-OF-MESSAGE from c[192.0.2.1]: x",
    "bounce": "{}: sender non-delivery notification: A00002",
    "pickup": "{}: uid=1 from=<> orig_id=A00002",
    "postsuper": "{}: requeued",
}


@given(st.lists(st.tuples(st.sampled_from(sorted(SAID)), st.sampled_from(["A00001", "A00002"])), max_size=30))
@settings(max_examples=50, deadline=None)
def test_lines_in_any_order_are_borne(lines: list[tuple[str, str]]) -> None:
    desk = Desk()
    desk.submit("A00001", "aa", "a@b.c")
    for who, queue_id in lines:
        desk.say(SAID[who].format(queue_id), daemon=who.partition("/")[0])


def test_what_ends_after_a_long_time_without_us_ends_some_at_a_time() -> None:
    """Each is a row and an event of one transaction, for which mail waits; in the end all are told of and forgotten."""
    desk = Desk()
    for number in range(1200):
        desk.take(f"A{number:05X}", f"{number:016x}", f"r{number}@example.net", message_id=f"<{number}@example.com>")
    for days, ends in ((7, "unknown"), (15, "")):
        slices: list[int] = []
        while not slices or slices[-1]:
            desk.correlator.wait(BEGIN + days * DAY)
            told = desk.correlator.told()
            assert set(kinds(told.events)) <= {ends}
            slices.append(len(told.events) + len(told.changed) + len(told.gone))
        assert max(slices) <= 600
        assert sum(slices) == (2400 if ends else 1200)
    assert list(desk.correlator.lives) == []
