"""The benchmark measures what it says: its two messages, its medians and ratios."""

from __future__ import annotations

import email
import email.policy
import re

import pytest

from tests.bench import account, goals, latency, parts, proof, report, rows, signers, web
from tests.bench.latency import Waits
from tests.bench.messages import Mail, newsletter, plain
from tests.bench.parts import PARTS, Turn
from tests.bench.rows import ALONE, FLOOR, OURS
from tests.bench.run import Sample
from tests.lab.sink import Delivery


@pytest.mark.parametrize(("mail", "octets"), [(plain(), 2_000), (newsletter(), 30_000)], ids=["plain", "newsletter"])
def test_sizes_and_lines_are_as_announced(mail: Mail, octets: int) -> None:
    """Within two hundredths of 2 kB and 30 kB, with no line that a server would cut."""
    assert abs(len(mail.raw) - octets) < octets / 50
    assert all(len(line) <= 78 for line in mail.raw.split(b"\r\n"))
    assert b"\n" not in mail.raw.replace(b"\r\n", b"")


def test_newsletter_has_its_links_in_quoted_printable() -> None:
    """What Python's own parser decodes holds 25 links, and half of the message or more is HTML."""
    parsed = email.message_from_bytes(newsletter().raw, policy=email.policy.default)
    page = next(part for part in parsed.walk() if part.get_content_type() == "text/html")
    assert page["content-transfer-encoding"] == "quoted-printable"
    assert len(re.findall(r'<a href="https://', page.get_content())) == newsletter().links == 25
    assert len(page.get_content()) > 15_000


def test_fields_and_body_are_the_message() -> None:
    """What goes over the milter protocol is what goes over SMTP."""
    mail = newsletter()
    header = b"".join(b"%b:%b\r\n" % (name.encode(), value.replace(b"\n", b"\r\n")) for name, value in mail.fields())
    assert header + b"\r\n" + mail.body() == mail.raw


def test_medians_and_ratios() -> None:
    """A median of three rates, the spread over it, ratios to Postfix alone and to the milter that does nothing."""
    seconds = {ALONE: (1.0, 2.0, 4.0), FLOOR: (4.0, 4.0, 4.0), OURS: (8.0, 8.0, 10.0)}
    cpu = {ALONE: 0.0, FLOOR: 0.4, OURS: 1.2}
    pairs = [(row, nth, took) for row, each in seconds.items() for nth, took in enumerate(each)]
    samples = [Sample("speed", row, "plain", 8, nth, 1000, took, cpu[row], 0.5) for row, nth, took in pairs]
    found = report.results(samples)
    assert [(each.row, each.rate, each.rounds) for each in found] == [(ALONE, 500, 3), (FLOOR, 250, 3), (OURS, 125, 3)]
    assert found[0].spread == pytest.approx((1000 - 250) / 500)
    ours = next(line for line in report.table(found) if OURS in line).split()
    assert ours == [OURS, "125", "20%", "1.20", "50%", "0.25", "0.50", "-"]


def test_turns_of_another_number_of_sessions_are_results_of_their_own() -> None:
    samples = [Sample("sessions", OURS, "plain", each, nth, 100, each, 1.0) for each in (1, 2) for nth in range(2)]
    found = report.results(samples)
    assert [(each.sessions, each.rate, each.rounds) for each in found] == [(1, 100, 2), (2, 50, 2)]
    assert "postmeter, 2 sessions" in "\n".join(report.table(found))


def _result(row: str, *, rate: float, cpu: float, part: str = "speed", mail: str = "plain") -> report.Result:
    return report.Result(part, row, mail, 8, 3, rate, 0.1, cpu, 1.0)


def test_goals_are_ratios_of_rows_that_were_run() -> None:
    """Twice OpenDKIM is enough, half its CPU is just enough, 1.6 times the floor is too much; no row, no goal."""
    found = [
        _result(FLOOR, rate=800, cpu=0.2), _result("opendkim", rate=100, cpu=1.6), _result(OURS, rate=200, cpu=0.8),
        _result("nothing-skipped", rate=100, cpu=0.1, part="foreign"),
        _result("postmeter-foreign", rate=94, cpu=0.1, part="foreign"),
    ]  # fmt: skip
    reached = goals.goals(goals.Found(found, [], {"plain": [0.2, 0.3, 0.9]}, {"speed": 1}))
    assert [(goal.what.split(",")[0], round(goal.found, 2), goal.reached) for goal in reached] == [
        ("messages/s", 2.0, True),
        ("CPU", 0.5, True),
        ("CPU", 1.6, False),
        ("mail not ours: messages/s", 0.94, False),
    ]
    assert [line.split()[-1] for line in goals.table(reached)][1:] == ["reached", "reached", "MISSED", "MISSED"]


def test_one_lost_message_is_one_too_many() -> None:
    for lost in (0, 1):
        [goal] = goals.goals(goals.Found([], [], {}, {"sessions": lost}))
        assert goal.reached == (lost == 0)


def test_what_a_milter_adds_is_less_than_what_opendkim_adds_or_the_goal_is_missed() -> None:
    times = {ALONE: (3.0, 5.0), "opendkim": (6.0, 11.0), OURS: (5.0, 12.0)}
    found = [Waits("waits", row, "plain", nth, 100, *each, 20.0) for row, each in times.items() for nth in range(3)]
    [goal] = goals.goals(goals.Found([], found, {}, {}))
    assert (goal.wanted, goal.found, goal.reached) == (6.0, 7.0, False)
    ours = next(line for line in report.waiting(found) if OURS in line).split()
    assert ours[-5:] == ["5.00", "12.00", "20.0", "2.00", "7.00"]


def test_messages_are_due_at_the_same_moments_for_every_row() -> None:
    moments = latency.due(10_000, 200)
    assert moments == latency.due(10_000, 200) == sorted(moments)
    assert moments[-1] == pytest.approx(50, rel=0.05)
    assert latency.quantile(range(1, 101), 0.99) == 99
    assert latency.quantile([3.0], 0.99) == 3.0


def test_one_row_can_be_run_alone() -> None:
    """In the first part that has it, or in a part that is named; and with one kind of message only."""
    [part] = parts.chosen([], ["postmeter:newsletter"])
    assert (part.name, [(turn.row.name, turn.mail.name) for turn in part.turns]) == ("speed", [(OURS, "newsletter")])
    [part] = parts.chosen(["waits"], [OURS])
    assert [turn.row.name for turn in part.turns] == [OURS, OURS]
    assert [part.name for part in parts.chosen([], [])] == [part.name for part in PARTS]
    for name in parts.names():
        assert len(list(parts.chosen([], [name]))) == 1
    assert list(parts.chosen([], ["nobody"])) == []


def test_a_number_of_sessions_for_all_leaves_no_turn_twice() -> None:
    sessions = next(part for part in PARTS if part.name == "sessions")
    assert len({turn.sessions for turn in sessions.turns}) == len(sessions.turns) > 1
    assert [turn.sessions for turn in parts.with_sessions(sessions, 4).turns] == [4]


def test_rows_that_are_not_here_cost_only_their_own_turns() -> None:
    speed = PARTS[0]
    fewer = speed.without({"rspamd"})
    assert [turn for turn in speed.turns if turn.row.name != "rspamd"] == list(fewer.turns)
    assert {row.name for row in speed.rows} - {row.name for row in fewer.rows} == {"rspamd"}


def test_a_row_that_does_not_do_its_work_is_found_out() -> None:
    """Unsigned, not tracked, or changed where nothing was asked for."""
    alone, ours = (next(row for row in rows.ROWS if row.name == name) for name in (ALONE, OURS))
    untouched = Delivery(b"", (), (), newsletter().raw)
    assert proof.wrong(Turn(alone, newsletter()), untouched, None) == ""
    assert proof.wrong(Turn(ours, newsletter()), untouched, None) == "0 signatures"
    signed = Delivery(b"", (), (), b"DKIM-Signature: v=1\r\n" + newsletter().raw)
    assert proof.wrong(Turn(ours, newsletter()), signed, None) == "0 of 25 links are tracked"
    longer = Delivery(b"", (), (), plain().raw + b"advertisement\r\n")
    assert proof.wrong(Turn(alone, plain()), longer, None) == "the body is not what was sent"


def test_signers_stand_beside_the_floor() -> None:
    """The median of the rounds, and how many times the floor it is."""
    found = [signers.Spent("floor", "plain", [0.1, 0.2, 0.3]), signers.Spent("postmeter", "plain", [9.0, 0.5, 0.1])]
    assert [line.split()[-2:] for line in signers.table(found)[1:]] == [["0.20", "1.0x"], ["0.50", "2.5x"]]
    assert abs(len(signers.large().raw) - 10_000_000) < 10_000


def test_a_message_too_few_is_a_difference() -> None:
    """One message not in the journal, one not charged, one account that should not be: each is told."""
    wanted = account.expected(messages=10, links=250, limits={"messages": 1})
    assert account.differences(wanted, wanted) == []
    found = account.Account(9, 0, 10, 250, ledger={"messages": 10, "bytes": 4})
    assert account.differences(found, wanted) == [
        "messages in the journal is 9, not 10",
        "ledger, bytes is 4, not None",
    ]
    uncharged = account.Account(10, 0, 10, 250, ledger={"messages": 9})
    assert account.differences(uncharged, wanted) == ["ledger, messages is 9, not 10"]


def test_mail_of_others_is_passed_and_nothing_is_written_about_it() -> None:
    foreign = next(row for row in rows.FOREIGN if row.name == "postmeter-foreign")
    assert account.wanted(foreign, {"plain": 3}, {"plain": 0}) == account.Account(0, 0, 0, 0, passed=3)
    ours = account.wanted(rows.INET, {"plain": 3, "newsletter": 2}, {"plain": 0, "newsletter": 25})
    assert (ours.submitted, ours.links, ours.passed, set(ours.ledger.values())) == (5, 50, 0, {5})


def test_what_wrk_prints_is_read_and_errors_are_no_figures() -> None:
    text = "  Latency Distribution\n     50%  900.00us\n     99%    1.19s \n  12102 requests\nRequests/sec:   6036.27\n"
    assert web.read(text) == web.Speed(6036.27, 1190.0)
    for error in ("  Socket errors: connect 0, read 1\n", "  Non-2xx or 3xx responses: 5\n"):
        with pytest.raises(RuntimeError):
            web.read(text + error)
