"""Shipping to a real PostgreSQL: each event once, as it is, whoever is killed, hangs, or is put back from a backup."""

from __future__ import annotations

import multiprocessing
import os
import random
import secrets
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from multiprocessing import synchronize
from pathlib import Path

import pytest

from postmeter.books import shipping
from postmeter.books.following import Follower
from postmeter.books.shipping import Shipper
from postmeter.events import Event, Refused, Sent, Submitted
from postmeter.runtime.logs import OnceAMinute
from postmeter.store import copying, postgres_schema, shipped, suppression, unshipped
from postmeter.store.accounts import StoreDownError
from postmeter.store.journal import Journal
from postmeter.store.postgres import Postgres
from tests.lab.postgres import Postgres as Server

NOW = 1_793_700_005.0
KEEP = 60 * 86_400.0
_numbers = count(1)
_databases = count(1)

EVENTS = "SELECT seq, host, kind, source, time, reference, queue_id, login, from_domain, data FROM events"

pytestmark = pytest.mark.usefixtures("needs_postgres")


@pytest.fixture(autouse=True)
def outspoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test heard a minute ago another has not."""
    monkeypatch.setattr(shipping, "once", OnceAMinute(shipping.log))


@pytest.fixture(scope="module")
def server(needs_postgres: None) -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    return server.new_database(f"hosts{next(_databases)}")


class Host:
    """A journal and what ships it; `now` is its clocks. `restart` is what a restart of the books does."""

    def __init__(self, folder: Path, url: str, name: str = "mx1", *, patience: float = 20.0) -> None:
        self.path, self.url, self.name, self.patience = folder / f"{name}.db", url, name, patience
        self.now = NOW
        self.restart()

    def restart(self, name: str = "") -> None:
        self.name = name or self.name
        self.journal = Journal(self.path, host=self.name)
        self.shipper = Shipper(
            Journal(self.path, host=self.name), Postgres(self.url, patience=self.patience), host=self.name, keep=KEEP,
            instance=lambda: secrets.token_hex(8), chance=lambda: 0.5, now=lambda: self.now, ticks=lambda: self.now,
        )  # fmt: skip

    def close(self) -> None:
        self.journal.close()
        self.shipper.close()

    def ship(self, *events: Event) -> None:
        """Record these, and ship until there is nothing left."""
        self.journal.record(events)
        self.now += 100.0
        while self.shipper.work():
            pass

    def lag(self) -> int:
        return unshipped.lag(self.journal.database)

    def mine(self) -> list[tuple[object, ...]]:
        return self.journal.database.query(EVENTS + " ORDER BY seq")

    def theirs(self) -> list[tuple[object, ...]]:
        """What the database has of the journal that ships under our name now."""
        where = " WHERE journal = (SELECT id FROM journals WHERE host = %s AND ended IS NULL) ORDER BY seq"
        return ask(self.url, EVENTS + where, self.name)


def ask(url: str, sql: str, *values: object) -> list[tuple[object, ...]]:
    postgres = Postgres(url)
    try:
        with postgres.transaction() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        postgres.close()


def taken(*recipients: str, number: int = 0, **more: object) -> Submitted:
    number = number or next(_numbers)
    event = Submitted(
        source=f"eom:Q{number}:{NOW}", time=NOW, queue_id=f"Q{number}", reference=f"{number:016x}",
        message_id=f"<{number}@example.com>", login="alice@example.com", sender="alice@example.com", service="smtpd",
        mail_from="alice@example.com", from_domain="example.com", recipients=recipients or ("bob@example.net",),
        size=1000,
    )  # fmt: skip
    return replace(event, **more)  # type: ignore[arg-type]


def refused(times: int = 1) -> Refused:
    return Refused(
        source="refused:a:quota:1", time=NOW, login="a", sender="a", service="smtpd", reason="quota", reply="451",
        recipients=2 * times, count=times,
    )  # fmt: skip


def test_each_event_is_shipped_once_as_it_is(tmp_path: Path, url: str) -> None:
    host = Host(tmp_path, url)
    host.ship(*(taken() for _ in range(2500)))
    host.ship(taken("odd \ud83d\0 one@example.net", login="al\0ice"))
    assert host.lag() == 0
    assert [tuple(map(shipped.text, row)) for row in host.mine()] == host.theirs()
    assert len(host.theirs()) == 2501


def test_a_restart_goes_on_where_the_last_one_stopped(tmp_path: Path, url: str) -> None:
    host = Host(tmp_path, url)
    for _ in range(3):
        host.ship(taken(), taken())
        host.restart()
    assert host.mine() == host.theirs()
    assert len(ask(url, "SELECT id FROM journals")) == 1


def test_what_changes_after_it_was_shipped_is_the_same_on_both_sides(tmp_path: Path, url: str) -> None:
    """Refusals that count up, addresses that become hashes, events that are erased or too old: whoever does that."""
    host = Host(tmp_path, url)
    host.ship(refused(), *(taken() for _ in range(10)))
    host.ship(refused(), refused(3))
    assert '"count":5' in str(host.theirs()[0][-1]).replace(" ", "")
    with host.journal.database.transaction() as link:
        link.execute("UPDATE events SET data = replace(data, 'bob@example.net', 'hash:1234') WHERE seq IN (3, 5)")
        link.execute("DELETE FROM events WHERE seq IN (4, 5, 11)")
    assert host.lag() == 4
    host.ship()
    assert host.lag() == 0
    assert host.mine() == host.theirs()
    assert ask(url, "SELECT seq FROM lookups WHERE name = %s", "r:hash:1234") == [(3,)]
    bobs = ask(url, "SELECT seq FROM lookups WHERE name = %s ORDER BY seq", shipped.address_name("Bob@Example.NET"))
    assert bobs == [(2,), (6,), (7,), (8,), (9,), (10,)]


def test_figures_are_the_same_on_both_sides(tmp_path: Path, url: str) -> None:
    host = Host(tmp_path, url)
    columns = "day, from_domain, login, campaign, provider, what, value"
    message = taken("bob@example.net", "eve@example.net", facts={"campaign": "x" * 5000})
    for step in ([message], [sent(message, "bob@example.net")], [sent(message, "eve@example.net")]):
        host.journal.record(step)
        follow(host)
        host.ship()
        mine = host.journal.database.query(f"SELECT {columns} FROM figures ORDER BY {columns}")
        assert mine
        assert sorted(ask(url, f"SELECT {columns} FROM figures"), key=str) == sorted(mine, key=str)


def follow(host: Host) -> None:
    follower = Follower(host.journal, domains=["example.com"])
    while follower.work():
        pass


def sent(message: Submitted, recipient: str) -> Sent:
    return Sent(
        source=f"log:{next(_numbers)}", time=NOW + 5, queue_id=message.queue_id, reference=message.reference,
        login=message.login, from_domain=message.from_domain, recipient=recipient, provider="other", delay=5.0,
    )  # fmt: skip


def test_while_the_database_is_away_nothing_is_lost_and_it_is_said_once_a_minute(
    tmp_path: Path, server: Server, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(tmp_path, url)
    host.ship(taken())
    server.stop()
    for _ in range(20):
        host.ship(*(taken() for _ in range(100)))
    assert host.lag() == 2000
    told = [record for record in caplog.records if "wait in the journal" in record.message]
    assert len(told) == 1
    server.start()
    host.ship()
    assert host.lag() == 0
    assert host.mine() == host.theirs()
    assert "shipped again" in caplog.text


def test_a_database_that_hangs_is_hung_up_on(tmp_path: Path, server: Server, url: str) -> None:
    host = Host(tmp_path, url, patience=0.5)
    host.ship(taken())
    for _ in range(100):  # tables are made at first, which may take longer on a busy machine
        if not host.lag():
            break
        host.ship()
    server.pause()
    try:
        before = time.monotonic()
        host.ship(taken())
        assert time.monotonic() - before < 10
        assert host.lag() == 1
    finally:
        server.resume()
    host.ship()
    assert host.mine() == host.theirs()


def test_an_answer_that_is_lost_doubles_nothing(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch was committed and nobody heard of it: neither is it sent again, nor does anybody think of a backup."""
    host = Host(tmp_path, url)
    host.ship(taken())
    acknowledge = unshipped.acknowledge

    def lose(*arguments: object, **more: object) -> None:
        raise StoreDownError("the line went dead")

    monkeypatch.setattr(unshipped, "acknowledge", lose)
    host.ship(taken(), taken())
    monkeypatch.setattr(unshipped, "acknowledge", acknowledge)
    host.restart()
    host.ship(taken())
    assert host.mine() == host.theirs()
    assert len(ask(url, "SELECT id FROM journals")) == 1


def test_two_hosts_of_one_name_are_told_and_the_second_ships_nothing(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = Host(tmp_path, url)
    one.ship(taken())
    (tmp_path / "other").mkdir()
    two = Host(tmp_path / "other", url)
    two.ship(taken())
    assert "give each a journal.host of its own" in caplog.text
    assert two.lag() == 1
    assert one.mine() == one.theirs()
    two.restart("mx2")
    two.ship()
    assert two.mine() == two.theirs()
    assert one.mine() == one.theirs()


def test_a_machine_that_replaces_another_gets_its_name_when_a_person_says_so(tmp_path: Path, url: str) -> None:
    one = Host(tmp_path, url)
    one.ship(taken())
    (tmp_path / "new").mkdir()
    two = Host(tmp_path / "new", url)
    two.ship(taken())
    ask(url, "UPDATE journals SET ended = seen WHERE host = 'mx1' AND ended IS NULL")
    two.ship()
    assert two.mine() == two.theirs()
    assert len(ask(url, "SELECT seq FROM events")) == 2


def test_a_host_that_is_renamed_keeps_its_journal(tmp_path: Path, url: str) -> None:
    host = Host(tmp_path, url)
    host.ship(taken())
    host.restart("mail")
    host.ship(taken())
    assert host.mine() == host.theirs()
    assert ask(url, "SELECT host FROM journals") == [("mail",)]


def backup(host: Host, to: Path) -> None:
    source, target = sqlite3.connect(host.path), sqlite3.connect(to)
    source.backup(target)
    source.close()
    target.close()


def put_back(host: Host, copy: Path) -> None:
    host.close()
    for path in host.path.parent.glob(host.path.name + "*"):
        path.unlink()
    shutil.copy(copy, host.path)
    host.restart()


@pytest.mark.parametrize("fewer", [True, False])
def test_a_journal_that_was_put_back_is_noticed_and_loses_nothing(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture, fewer: bool
) -> None:
    """Whether or not it has come as far again as what was shipped: what was lost here stays, what is new is shipped."""
    host = Host(tmp_path, url)
    host.ship(*(taken() for _ in range(5)))
    host.journal.record([taken()])  # in the backup, and shipped after it
    backup(host, tmp_path / "backup.db")
    host.ship(*(taken() for _ in range(7)))
    lost = host.mine()[6:]
    put_back(host, tmp_path / "backup.db")
    host.ship(*(taken() for _ in range(2 if fewer else 20)))
    assert "put back from a backup" in caplog.text
    assert host.lag() == 0
    assert host.mine() == host.theirs()
    ended = "SELECT id FROM journals WHERE ended IS NOT NULL"
    assert ask(url, f"{EVENTS} WHERE journal IN ({ended}) ORDER BY seq") == lost
    host.restart()
    host.ship(taken())
    assert host.mine() == host.theirs()


def test_a_journal_put_back_that_misses_nothing_goes_on(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(tmp_path, url)
    host.ship(taken())
    host.journal.record([taken(), taken()])
    backup(host, tmp_path / "backup.db")
    host.ship()
    put_back(host, tmp_path / "backup.db")
    host.ship(taken())
    assert "put back" not in caplog.text
    assert host.mine() == host.theirs()


def marked_backup(host: Host, to: Path) -> None:
    """As `postmeter backup` makes it: numbers go on from the clock, far behind those that were ever given."""
    to.touch()
    copying.copy(host.journal.database, to)


@pytest.mark.parametrize("shipped_before", [True, False])
def test_numbers_that_jump_are_shipped_at_once(tmp_path: Path, url: str, shipped_before: bool) -> None:
    host = Host(tmp_path, url)
    host.journal.record([taken(), taken()])
    if shipped_before:
        host.ship()
    marked_backup(host, tmp_path / "backup.db")
    put_back(host, tmp_path / "backup.db")
    host.journal.record([taken() for _ in range(3)])
    assert host.journal.last() > 10**15, "no jump"
    assert host.lag() == (3 if shipped_before else 5)
    assert rounds(host) <= 4
    assert host.lag() == 0
    assert host.mine() == host.theirs()


def test_numbers_that_nobody_has_are_not_waiting_to_be_shipped(tmp_path: Path, url: str) -> None:
    """Each message that is refused at its end takes one."""
    host = Host(tmp_path, url)
    host.ship(taken())
    with host.journal.database.transaction() as link:
        link.execute("UPDATE sqlite_sequence SET seq = seq + 5000")
    host.journal.record([taken()])
    assert host.lag() == 1


def test_where_many_wait_a_jump_among_their_numbers_is_none_of_them(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many and more are told by their numbers, which are those of a time once a copy was put back."""
    host = Host(tmp_path, url)
    host.ship(taken())
    monkeypatch.setattr(unshipped, "_MANY", 3)
    with host.journal.database.transaction() as link:
        link.execute("UPDATE sqlite_sequence SET seq = seq + 2")
    host.journal.record([taken() for _ in range(4)])
    assert host.lag() == 6
    with host.journal.database.transaction() as link:
        link.execute("UPDATE sqlite_sequence SET seq = seq + ?", (10**15,))
    host.journal.record([taken()])
    assert host.lag() == 3


def test_a_backup_that_was_put_back_is_noticed_behind_a_jump(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What was shipped after it was made is another journal's, though its numbers may not be given again."""
    host = Host(tmp_path, url)
    host.ship(*(taken() for _ in range(5)))
    for nth in ("first", "second"):
        had = len(host.mine())
        marked_backup(host, tmp_path / nth)
        host.ship(*(taken() for _ in range(7)))
        lost = host.mine()[had:]
        put_back(host, tmp_path / nth)
        host.journal.record([taken() for _ in range(2)])
        caplog.clear()
        assert rounds(host) <= 8
        assert "put back from a backup" in caplog.text
        assert host.lag() == 0
        assert host.mine() == host.theirs()
        ended = "SELECT max(id) FROM journals WHERE ended IS NOT NULL"
        assert ask(url, f"{EVENTS} WHERE journal IN ({ended}) ORDER BY seq") == lost


def rounds(host: Host) -> int:
    """How often it has to be asked until everything is shipped."""
    host.now += 100.0
    return next(number for number in range(1, 100) if not host.shipper.work())


def test_of_two_copies_of_one_journal_one_is_told(tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A virtual machine that was cloned: both have the same name and the same past."""
    one = Host(tmp_path, url)
    one.ship(taken())
    (tmp_path / "clone").mkdir()
    backup(one, tmp_path / "clone" / "mx1.db")
    two = Host(tmp_path / "clone", url)
    for _ in range(4):
        one.ship(taken())
        two.ship(taken())
    assert "nothing is shipped" in caplog.text
    assert sorted((one.lag() > 0, two.lag() > 0)) == [False, True]


def test_after_a_time_without_shipping_both_sides_are_the_same_again(tmp_path: Path, url: str) -> None:
    host = Host(tmp_path, url)
    host.ship(*(taken() for _ in range(5)))
    assert unshipped.end(host.journal.database)
    with host.journal.database.transaction() as link:
        link.execute("UPDATE events SET login = 'nobody' WHERE seq = 2")
        link.execute("DELETE FROM events WHERE seq = 3")
    host.restart()
    host.ship(taken())
    assert host.lag() == 0
    assert host.mine() == host.theirs()


def test_without_shipping_nobody_puts_anything_down(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", host="mx1")
    journal.record([refused()])
    journal.record([refused()])
    assert journal.database.query("SELECT * FROM unshipped") == []


def test_what_an_ended_journal_left_is_forgotten_in_time(tmp_path: Path, url: str) -> None:
    host = Host(tmp_path, url)
    host.ship(taken())
    ask(url, "UPDATE journals SET ended = seen")
    (tmp_path / "new").mkdir()
    other = Host(tmp_path / "new", url)
    other.ship(taken())
    other.now = NOW + KEEP + 10
    other.ship()
    assert len(ask(url, "SELECT seq FROM events")) == 1
    assert other.mine() == other.theirs()
    assert len(ask(url, "SELECT seq FROM lookups")) == 2


def test_an_empty_database_gets_everything(tmp_path: Path, server: Server, url: str) -> None:
    host = Host(tmp_path, url)
    host.ship(*(taken() for _ in range(5)))
    host.url = server.new_database(f"hosts{next(_databases)}")
    host.restart()
    host.ship(taken())
    assert host.mine() == host.theirs()
    assert len(host.theirs()) == 6


@pytest.mark.parametrize("empty", [True, False])
def test_a_database_that_was_put_back_gets_what_it_misses(
    tmp_path: Path, server: Server, url: str, *, empty: bool
) -> None:
    """Empty, or as it was some time ago: figures that changed since, and addresses that were forgotten meanwhile."""
    host = Host(tmp_path, url)
    host.ship(taken(login="eve@example.com"), *(taken() for _ in range(4)))
    follow(host)
    host.ship()
    host.shipper.close()
    name = f"hosts{next(_databases)}"
    older = server.new_database(name) if empty else copied(server, url, name)
    host.ship(*(taken() for _ in range(3)))
    follow(host)
    with host.journal.database.transaction() as link:
        link.execute("UPDATE events SET data = replace(data, 'bob@example.net', 'hash:0') WHERE seq = 2")
    host.ship()
    host.url = older
    host.close()
    host.restart()
    host.ship(taken())
    follow(host)
    host.ship()
    assert host.mine() == host.theirs()
    assert len(host.theirs()) == 9
    ours = "SELECT day, from_domain, login, campaign, provider, what, value FROM figures ORDER BY 1, 2, 3, 4, 5, 6"
    assert host.journal.database.query(ours) == ask(host.url, ours)


def copied(server: Server, url: str, name: str) -> str:
    """A database as it is now, under another name; nobody may be connected to it."""
    old = url.partition("@/")[2].partition("?")[0]
    server.sql(f"CREATE DATABASE {name} TEMPLATE {old} OWNER postmeter", database="postgres")
    return server.url(database=name)


def test_addresses_are_forgotten_over_there_on_a_host_that_is_never_idle(tmp_path: Path, url: str) -> None:
    host = Host(tmp_path, url)
    with host.journal.database.transaction() as link:
        old = suppression.Suppression("bob@example.net", "everywhere", "bounced", NOW - KEEP - 10.0)
        suppression.lengthen(link, [old])
    host.ship(taken())
    for _ in range(3):
        host.now += 3600.0
        host.journal.record([taken()])
        host.shipper.work()  # one batch: more comes before there is nothing to do
    assert ask(url, "SELECT address FROM suppressions") == []


def test_hosts_that_start_at_once_make_the_schema_once(url: str) -> None:
    made: list[list[str]] = []
    gate = threading.Barrier(6)

    def make() -> None:
        postgres = Postgres(url)
        gate.wait()
        made.append(postgres_schema.bring_up_to_date(postgres, NOW))
        postgres.close()

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, made)) == [0, 0, 0, 0, 0, len(postgres_schema.MIGRATIONS)]


def test_a_step_that_fails_leaves_the_schema_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = Postgres(url)
    broken = [*postgres_schema.MIGRATIONS, ("broken", "CREATE TABLE good (x TEXT); CREATE TABLE bad (")]
    monkeypatch.setattr(postgres_schema, "MIGRATIONS", broken)
    with pytest.raises(StoreDownError):
        postgres_schema.bring_up_to_date(postgres, NOW)
    there = "SELECT 1 FROM information_schema.tables WHERE table_name IN ('good', 'events', 'migrations')"
    assert ask(url, there) == []
    postgres.close()


def test_a_role_that_may_make_no_tables_ships_into_those_that_the_script_made(
    tmp_path: Path, server: Server, url: str
) -> None:
    name = f"hosts{next(_databases)}"
    server.sql(f"CREATE DATABASE {name}", database="postgres")
    server.sql(postgres_schema.as_script(), database=name)
    server.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO postmeter", database=name)
    host = Host(tmp_path, server.url(database=name))
    host.ship(taken(), refused())
    assert host.mine() == host.theirs()
    again = postgres_schema.as_script([step for step, _ in postgres_schema.MIGRATIONS])
    server.sql(again, database=name)  # nothing is left to do


def test_the_password_is_sent_over_tls_and_stands_in_no_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(tls=True) as server:
        file = server.password_file()
        secret = file.read_text().strip()
        good = Postgres(server.inet, password_file=file)
        postgres_schema.bring_up_to_date(good, NOW)
        with good.transaction() as cursor:
            assert cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
        good.close()
        file.write_text(secret[::-1])
        bad = Host(tmp_path, server.inet)
        bad.shipper._postgres = Postgres(server.inet, password_file=file)
        bad.ship(taken())
        assert "authentication failed" in caplog.text
        assert secret not in caplog.text
        assert secret[::-1] not in caplog.text
        open_road = f"postgresql://postmeter@127.0.0.1:{server.port}/postmeter?sslmode=disable"
        plain = Postgres(open_road, password_file=file)
        with pytest.raises(StoreDownError), plain.transaction():
            pass


def test_a_password_that_is_no_text_is_told_without_saying_it(tmp_path: Path, url: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"sword\xfffish\n")
    with pytest.raises(StoreDownError, match="no UTF-8") as caught, Postgres(url, password_file=file).transaction():
        pass
    assert "xff" not in str(caught.value)


def _books(path: Path, url: str, name: str, follows: bool) -> None:
    """A process that ships until it is killed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    journal = Journal(path, host=name)
    shipper = Shipper(
        Journal(path, host=name), Postgres(url), host=name, keep=KEEP, instance=lambda: secrets.token_hex(8),
        chance=random.random, ticks=lambda: 50 * time.monotonic(),
    )  # fmt: skip
    follower = Follower(journal, domains=["example.com"])
    while True:
        more = follower.work() if follows else False
        if not shipper.work() and not more:
            time.sleep(0.01)


def test_killed_at_any_moment_books_and_database_agree_in_the_end(tmp_path: Path) -> None:
    """Two hosts under load; each one's books and every process of PostgreSQL are killed again and again."""
    chance = random.Random(6)
    fork = multiprocessing.get_context("fork")
    with Server() as server:
        url = server.url()
        hosts = [Host(tmp_path, url, name) for name in ("one", "two")]
        for host in hosts:
            host.close()
        stop = fork.Event()
        load = [fork.Process(target=_load, args=(host.path, host.name, stop), daemon=True) for host in hosts]
        for process in load:
            process.start()
        books = {host.name: _started(fork, host, url) for host in hosts}
        try:
            for turn in range(12):
                time.sleep(chance.uniform(0.05, 0.4))  # any moment is as good as another
                host = chance.choice(hosts)
                os.kill(books[host.name].pid or 0, signal.SIGKILL)
                books[host.name].join()
                if turn % 3 == 1:
                    server.kill()
                    server.start()
                books[host.name] = _started(fork, host, url)
        finally:
            stop.set()
            for process in load:
                process.join()
            for process in books.values():
                process.kill()
                process.join()
        for host in hosts:
            host.restart()
            follow(host)
            host.ship()
            assert len(host.mine()) > 100
            assert host.mine() == host.theirs()
            assert host.lag() == 0
        assert len(ask(url, "SELECT id FROM journals")) == 2
        everywhere = ask(url, "SELECT host, source, count(*) FROM events GROUP BY host, source HAVING count(*) > 1")
        assert everywhere == []


def _started(fork: multiprocessing.context.ForkContext, host: Host, url: str) -> multiprocessing.context.ForkProcess:
    process = fork.Process(target=_books, args=(host.path, url, host.name, True), daemon=True)
    process.start()
    return process


def _load(path: Path, name: str, stop: synchronize.Event) -> None:
    journal = Journal(path, host=name)
    chance = random.Random(name)
    for number in count(1):
        if stop.wait(0.002):
            break
        message = taken(number=number)
        journal.record([message, refused()])
        if chance.random() < 0.5:
            journal.record([replace(sent(message, "bob@example.net"), source=f"log:{number}")])
        if chance.random() < 0.1:
            with journal.database.transaction() as link:
                link.execute("DELETE FROM events WHERE seq = ?", (chance.randint(1, 3 * number),))
    journal.close()
