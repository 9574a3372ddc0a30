"""Quotas in the real Redis: what it keeps, what happens when it is gone, hangs, moves or forgets, and comes back.

Times are bounded generously: what matters is that nobody waits for long, not how fast this machine is.
"""

from __future__ import annotations

import binascii
import logging
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postmeter.config.schema import InetAddress, RedisStore
from postmeter.events import Released
from postmeter.store import database, orders
from postmeter.store.accounts import Accounts, Settled, StoreDownError
from postmeter.store.database import StoreError
from postmeter.store.orders import Order
from postmeter.store.redis_ledger import ACCOUNTS, RedisLedger
from postmeter.store.redis_orders import RedisOrders
from postmeter.store.redis_server import REST, RedisServer
from postmeter.store.window import MOST, Window
from tests.lab.redis import Cluster, Redis
from tests.lab.stores import Place, opened, place
from tests.lab.waiting import wait_for
from tests.session.test_store_semantics import DAY, HOUR, NOW, charge, events, send, submitted, used
from tests.unit.test_store_window import busy

TIMEOUT = 0.25
CLIENTS = 6
SLOW = 2.0  # seconds that a decision may take on a busy machine; a hung server without a timeout takes for ever


@pytest.fixture(scope="module")
def shared(needs_redis: None) -> Iterator[Redis]:
    """For tests that leave it as it was."""
    with Redis() as server:
        yield server


@pytest.fixture
def redis(needs_redis: None) -> Iterator[Redis]:
    """For tests that stop it, or break it otherwise; it keeps what it was told."""
    with Redis(durable=True) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(needs_redis: None) -> Iterator[Cluster]:
    with Cluster() as nodes:
        yield nodes


@pytest.fixture
def where(shared: Redis, tmp_path: Path) -> Place:
    return place(tmp_path, shared.unix)


@pytest.fixture
def accounts(where: Place) -> Iterator[Accounts]:
    with opened(where, caller_clock=True) as found:
        yield found


def key(where: Place, name: str = "sender:alice") -> str:
    return f"{{{where.prefix}}}:{name}"


# --- what is kept


amounts = st.one_of(st.just(1), st.integers(1, 10**6))
steps = st.one_of(
    st.integers(0, 100), st.integers(0, 10**6), st.integers(0, HOUR * 10**5), st.integers(-(10**10), 10**9)
)


@given(st.lists(st.tuples(steps, amounts), min_size=1, max_size=90))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_script_keeps_the_very_entries_that_the_ledger_would(
    where: Place, accounts: Accounts, mail: list[tuple[int, int]]
) -> None:
    """Joined or not, and whatever the clock does."""
    remote = where.ledger(caller_clock=True)
    name, window, micro = f"{mail}"[:200], Window(HOUR * 10**6), int(NOW) * 10**6
    remote.reset("sender", name)
    for step, amount in mail:
        micro += step
        now = micro / 10**6
        window = window.charged(int(now * 10**6), amount)
        remote.settle([charge(name, limit=2**50, amount=amount)], now)
    (usage,) = remote.usage(now, level="sender", key=name)
    assert usage.state == window
    assert len(usage.state.times) <= MOST
    remote.close()


@pytest.mark.parametrize("seed", range(4))
def test_the_script_joins_charges_as_the_ledger_does(where: Place, accounts: Accounts, seed: int) -> None:
    """Hundreds of charges over some windows, in bursts and with pauses."""
    remote, window = where.ledger(caller_clock=True), Window(HOUR * 10**6)
    for micro, amount in busy(seed, window.length):
        now = micro / 10**6
        window = window.charged(int(now * 10**6), amount)
        remote.settle([charge(limit=2**50, amount=amount)], now)
        (usage,) = remote.usage(now, level="sender", key="alice")
        assert usage.state == window
    remote.close()


def test_a_refusal_is_not_remembered_for_longer_than_it_holds(accounts: Accounts) -> None:
    one = charge(window=1, limit=1)
    send(accounts, one)
    assert send(accounts, one, now=NOW + 0.9).refused
    assert accounts.glance([one], NOW + 0.9)
    wait_for(lambda: accounts.glance([one], NOW + 1) is None, within=0.6)


def test_a_refusal_is_remembered_for_its_own_limit_only(accounts: Accounts) -> None:
    """An order may have raised it meanwhile, and it is to be in force within a second."""
    send(accounts, charge(limit=1))
    assert send(accounts, charge(limit=1)).refused
    assert accounts.glance([charge(limit=1)], NOW)
    assert accounts.glance([charge(limit=2)], NOW) is None


def test_a_key_goes_when_all_of_its_windows_are_empty(where: Place, shared: Redis, accounts: Accounts) -> None:
    send(accounts, charge(window=HOUR), charge(window=DAY))
    assert DAY - 60 < int(shared.cli("PTTL", key(where))) / 1000 <= DAY
    send(accounts, charge("bob", window=1), charge("bob", window=1, unit="bytes"))
    assert int(shared.cli("PTTL", key(where, "sender:bob"))) <= 1000
    wait_for(lambda: shared.cli("EXISTS", key(where, "sender:bob")) == "0")


def test_an_account_takes_at_most_a_kilobyte(where: Place, shared: Redis, accounts: Accounts) -> None:
    """60 entries of 14 bytes, and its name; ten shares that were warned of are 110 bytes more."""
    for nth in range(300):
        send(accounts, charge(limit=2**50, amount=10**9 + nth, unit="bytes"), now=NOW + nth)
    assert int(shared.cli("STRLEN", key(where))) <= MOST * 14 + 60
    many = tuple(range(10, 101, 10))
    send(accounts, charge(limit=10**9, amount=10**9, unit="bytes", warn=many), now=NOW + 2 * HOUR)
    assert int(shared.cli("STRLEN", key(where))) <= 14 + 60 + 110


def test_accounts_that_are_empty_do_not_stay_beside_others(where: Place, shared: Redis, accounts: Accounts) -> None:
    send(accounts, charge(window=60))
    before = int(shared.cli("STRLEN", key(where)))
    send(accounts, charge(window=60, unit="bytes"), now=NOW + 120)
    assert int(shared.cli("STRLEN", key(where))) <= before


def test_everybodys_use_is_listed_and_one_is_reset(where: Place, accounts: Accounts) -> None:
    names = [f"user{nth}@example.com" for nth in range(250)]
    for name in names:
        send(accounts, charge(name), charge("", level="total", limit=10**6))
    remote = where.ledger(caller_clock=True)
    found = Counter((usage.level, usage.key, usage.used) for usage in remote.each_usage(NOW))
    assert found == Counter([("total", "", 250), *(("sender", name, 1) for name in names)])
    assert {usage.level for usage in remote.each_usage(NOW, level="total")} == {"total"}
    assert remote.reset("sender", names[0]) == 1
    assert remote.reset("sender", names[0]) == 0
    assert remote.usage(NOW, level="sender", key=names[0]) == []
    remote.close()


def test_the_servers_clock_rules(where: Place) -> None:
    """Hosts whose clocks disagree by a day share one window all the same."""
    with opened(where) as accounts:
        assert send(accounts, charge(limit=1), now=time.time() - DAY) == Settled()
        refused = send(accounts, charge(limit=1), now=time.time() + DAY).refused
    assert refused is not None
    assert refused.room_at == pytest.approx(time.time() + HOUR, abs=60)


def test_a_server_that_forgot_the_script_is_told_it_again(where: Place, shared: Redis, accounts: Accounts) -> None:
    send(accounts, charge())
    shared.cli("SCRIPT", "FLUSH")
    assert send(accounts, charge()) == Settled()
    assert used(where, "alice") == {("recipients", HOUR): 2}


def test_a_key_that_cannot_be_read_stops_nobody_else_and_a_reset_mends_it(
    where: Place, shared: Redis, accounts: Accounts
) -> None:
    for damage in (["SET", "rubbish"], ["LPUSH", "rubbish"]):
        shared.cli(damage[0], key(where), damage[1])
        with pytest.raises(StoreDownError):
            send(accounts, charge())
        assert send(accounts, charge("bob")) == Settled(), "the store as a whole counts as gone"
        with closing(where.ledger()) as remote:
            assert remote.reset("sender", "alice") == 1
        assert send(accounts, charge()) == Settled()
        with closing(where.ledger()) as remote:
            remote.reset("sender", "alice")


# --- two stores, one message


def test_a_charge_whose_message_cannot_be_recorded_is_given_back(
    where: Place, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the journal nor in the emergency spool. What was charged before stays, and warnings come again."""
    warn = charge(limit=10, amount=4, warn=(50,))
    send(accounts, charge(limit=10, amount=2))
    journal: Any = accounts._journal  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(journal._spool, "_most", 0)
        with closing(sqlite3.connect(where.path)) as link:
            link.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreError, match="emergency spool"):
                send(accounts, warn, now=NOW + 1)
    assert used(where, "alice") == {("recipients", HOUR): 2}
    wait_for(lambda: send(accounts, warn, now=NOW + 2) == Settled())
    assert used(where, "alice", NOW + 2) == {("recipients", HOUR): 6}
    wait_for(lambda: [event["percent"] for event in events(where, "warned")] == [50])


def test_what_was_joined_meanwhile_is_given_back_all_the_same(where: Place) -> None:
    remote = where.ledger(caller_clock=True)
    one = [charge(limit=10**6, amount=7)]
    verdict = remote.settle(one, NOW)
    for nth in range(1, 200):
        remote.settle([charge(limit=10**6)], NOW + nth)
    remote.give_back(one, verdict, NOW + 200)
    (usage,) = remote.usage(NOW + 200, level="sender", key="alice")
    assert usage.used == 199
    remote.close()


def test_an_event_that_the_journal_knows_is_not_charged_again(where: Place, accounts: Accounts) -> None:
    event = Released(source="released:Q:1", time=NOW, queue_id="Q", login="a", sender="a", action="released", by="due")
    for _ in range(2):
        assert accounts.settle([charge(limit=1)], event, {}, NOW) == Settled()
    assert used(where, "alice") == {("recipients", HOUR): 1}


def test_when_redis_is_full_nothing_is_charged_and_nothing_lost(redis: Redis, tmp_path: Path) -> None:
    where = place(tmp_path, redis.unix, timeout=5.0)  # an answer that came too late would be a charge without a message
    with opened(where) as accounts:
        send(accounts, charge())
        redis.cli("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreDownError, match="maxmemory"):
            send(accounts, charge())
        redis.cli("CONFIG", "SET", "maxmemory", "0")
        wait_for(lambda: charged(accounts))
    assert used(where, "alice", time.time()) == {("recipients", HOUR): 2}


def charged(accounts: Accounts) -> bool:
    try:
        return send(accounts, charge()).refused is None
    except StoreDownError:
        return False


# --- gone, hanging, back


@dataclass
class Load:
    """Clients that send through a failure, each decision with what became of it and how long it took."""

    accounts: Accounts
    where: Place
    taken: int = 0
    down: int = 0
    slowest: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    clients: list[threading.Thread] = field(default_factory=list)

    def start(self, clients: int) -> None:
        self.clients = [threading.Thread(target=self.run) for _ in range(clients)]
        for client in self.clients:
            client.start()

    def run(self) -> None:
        while not self.stop.is_set():
            begin, failed = time.monotonic(), False
            try:
                send(self.accounts, charge(limit=10**6), now=time.time())
            except StoreDownError:
                failed = True
            with self.lock:
                self.down += failed
                self.taken += not failed
                self.slowest = max(self.slowest, time.monotonic() - begin)
            self.stop.wait(0.002 if not failed else 0.01)

    def finish(self) -> None:
        self.stop.set()
        for client in self.clients:
            client.join(20)

    def more(self, name: str, count: int = 20) -> None:
        """Wait until so many more decisions of that kind were made."""
        want = getattr(self, name) + count
        wait_for(lambda: getattr(self, name) >= want)


@pytest.fixture
def load(redis: Redis, tmp_path: Path) -> Iterator[Load]:
    where = place(tmp_path, redis.inet, timeout=TIMEOUT)
    with opened(where) as accounts:
        load = Load(accounts, where)
        load.start(CLIENTS)
        yield load
        load.finish()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_server_that_goes_and_returns_under_load(load: Load, redis: Redis, how: str) -> None:
    """Nobody waits long, and it is found again without help; what it was told when it went may be charged besides."""
    load.more("taken")
    getattr(redis, how)()
    load.more("down")
    redis.start()
    load.more("taken")
    load.finish()
    assert load.slowest < SLOW
    assert len(events(load.where, "submitted")) == load.taken
    charged = used(load.where, "alice", time.time())["recipients", HOUR]
    assert load.taken <= charged <= load.taken + CLIENTS


def test_a_server_that_hangs_costs_one_caller_a_second_a_short_wait(load: Load, redis: Redis) -> None:
    load.more("taken")
    redis.pause()
    load.more("down", 100)
    began, before = time.monotonic(), load.down
    load.more("down", 200)
    fast = (load.down - before) / (time.monotonic() - began)
    redis.resume()
    load.more("taken")
    load.finish()
    assert load.slowest < SLOW
    charged = used(load.where, "alice", time.time())["recipients", HOUR]
    assert load.taken <= charged <= load.taken + CLIENTS  # whose answers were not sent yet
    assert fast > CLIENTS / TIMEOUT, "everybody waits for the hung server"


def test_what_was_given_up_is_not_charged_later(redis: Redis, tmp_path: Path) -> None:
    """The server finds the command in its buffer when it wakes up, and by its own clock that is too late."""
    where = place(tmp_path, redis.unix, timeout=TIMEOUT)
    with opened(where) as accounts:
        send(accounts, charge())
        redis.pause()
        with pytest.raises(StoreDownError):
            send(accounts, charge())
        redis.resume()
        wait_for(lambda: charged(accounts))
    assert used(where, "alice", time.time()) == {("recipients", HOUR): 2}


def test_a_server_whose_clock_is_stepped_forward_is_understood_at_once(where: Place) -> None:
    """What it calls too late is asked again with its new time."""
    remote = where.ledger()
    remote.settle([charge()], NOW)
    remote._ahead = (remote._ahead or 0) - DAY
    assert remote.settle([charge()], NOW).settled == Settled()
    remote.close()


def test_a_connection_that_the_server_closed_meanwhile_is_replaced_unseen(redis: Redis, tmp_path: Path) -> None:
    with opened(place(tmp_path, redis.inet, timeout=TIMEOUT)) as accounts:
        for _ in range(3):
            assert send(accounts, charge()) == Settled()
            redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        redis.stop()
        redis.start()
        assert send(accounts, charge()) == Settled()


@pytest.mark.parametrize("kind", ["inet", "tls"])
def test_a_connection_is_used_again(shared: Redis, guarded: Redis, tmp_path: Path, kind: str) -> None:
    server = guarded if kind == "tls" else shared
    where = guarded_place(tmp_path, server) if kind == "tls" else place(tmp_path, server.inet)

    def connections() -> int:
        return int(server.cli("INFO", "stats").split("total_connections_received:")[1].split()[0])

    before = connections()
    with opened(where) as accounts:
        for _ in range(20):
            send(accounts, charge(limit=100))
    assert connections() == before + 2  # one of them asks for the figure


def test_at_most_sixteen_connections_are_kept(redis: Redis, tmp_path: Path) -> None:
    with opened(place(tmp_path, redis.unix)) as accounts:
        threads = [threading.Thread(target=send, args=(accounts, charge(limit=10**6))) for _ in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: int(redis.cli("INFO", "clients").split("connected_clients:")[1].split()[0]) <= 17)


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1", "redis+unix:///nowhere/redis.sock", "redis://no.such.host.invalid"]
)
def test_who_cannot_be_reached_is_named(tmp_path: Path, url: str) -> None:
    with opened(place(tmp_path, url, timeout=TIMEOUT)) as accounts, pytest.raises(StoreDownError) as caught:
        send(accounts, charge())
    assert url.partition("://")[2].split(":")[0] in str(caught.value)


def test_a_resolver_that_hangs_makes_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, woken = socket.getaddrinfo, threading.Event()

    def hang(host: str, *arguments: Any, **more: Any) -> Any:
        if not more.get("flags", 0) & socket.AI_NUMERICHOST:
            woken.wait(20)
        return real(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    where = place(tmp_path, "redis://redis.example.com", timeout=TIMEOUT)
    with opened(where) as accounts, pytest.raises(StoreDownError, match="not resolved in time"):
        send(accounts, charge())
    woken.set()
    assert time.monotonic() - began < SLOW


def test_a_host_without_threads_for_a_moment_has_no_store_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `quota.on_store_down` says is done then, and no bug is met."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = RedisServer(RedisStore(places=(InetAddress(host="redis.example.com", port=6379),)), timeout=TIMEOUT)
    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", start)
        with pytest.raises(StoreDownError, match="new thread"):
            server.ask("PING")


def test_a_server_that_answers_slowly_costs_no_more_than_one_that_hangs(shared: Redis, tmp_path: Path) -> None:
    """To log in and choose a database are several questions: each is answered in time, and all of them are not."""
    with Slow(shared.port, TIMEOUT * 0.8) as port:
        where = place(tmp_path, f"redis://127.0.0.1:{port}/3", timeout=TIMEOUT)
        with opened(where) as accounts:
            began = time.monotonic()
            with pytest.raises(StoreDownError):
                send(accounts, charge())
            assert time.monotonic() - began < 2 * TIMEOUT


class Slow:
    """Stands before a server; each answer is `seconds` late. Use as a context manager, which is its port."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port, self._seconds = port, seconds
        self._door = socket.create_server(("127.0.0.1", 0))
        self._open = [self._door]

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self._door.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        for wire in self._open:
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
            wire.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                threading.Thread(target=self._pass_on, args=(client, server, 0.0), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, self._seconds), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket, seconds: float) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                time.sleep(seconds)  # that it is slow is what is tested
                target.sendall(data)


@contextmanager
def answering(words: Callable[[bytes], str]) -> Iterator[int]:
    """A port of which each client is answered what `words` makes of what it sent."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def talk() -> None:
            with suppress(OSError):
                while True:
                    wire, _ = door.accept()
                    threading.Thread(target=answer, args=(wire,), daemon=True).start()

        def answer(wire: socket.socket) -> None:
            with wire, suppress(OSError):
                wire.settimeout(5)
                while asked := wire.recv(65536):
                    wire.sendall(f"{words(asked)}\r\n".encode("latin-1"))

        threading.Thread(target=talk, daemon=True).start()
        yield door.getsockname()[1]
        door.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("cluster", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        ":abc", "$x", "*1\r\n:", "*2\r\n:1", "-MOVED", "-MOVED 1 here", "-ASK", "-", "220 mx ESMTP", "\xff",
        "HTTP/1.1 400 Bad Request\r\n",
    ],
)  # fmt: skip
def test_what_no_redis_says_is_no_bug_of_ours(said: str, cluster: bool) -> None:
    """Another program has its port, or something on the way has damaged it: mail is as without a store."""
    with answering(lambda asked: said) as port:
        where = InetAddress(host="127.0.0.1", port=port)
        store = RedisStore(places=(where,), cluster=cluster, database=0 if cluster else 3)
        server = RedisServer(store, timeout=TIMEOUT)
        with pytest.raises(StoreDownError):
            server.run(ACCOUNTS, ["x"], "check")
        server.close()


@pytest.mark.parametrize(
    "said", ["*0", "*-1", ":1", "+OK", "$2\r\nOK", "*2\r\n+a\r\n+b", "*1\r\n:1", "*1\r\n" * 3000 + ":1"]
)
def test_an_answer_that_the_script_never_gives_is_no_bug_of_ours(said: str) -> None:
    """Else `on_store_down: accept` would not hold, and mail be charged and put off again and again."""

    def words(asked: bytes) -> str:
        return said if b"EVALSHA" in asked else "%1\r\n+proto\r\n:3" if b"HELLO" in asked else "+OK"

    with answering(words) as port:
        store = RedisStore(places=(InetAddress(host="127.0.0.1", port=port),))
        for ask in (RedisLedger.settle, RedisLedger.check):
            server = RedisServer(store, timeout=20)
            with pytest.raises(StoreDownError, match="as no Redis does"):
                ask(RedisLedger(server, "x"), [charge()], NOW)
            server.close()


@pytest.mark.parametrize("slots", [":1", "*1\r\n:1", "*1\r\n*0", "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n:5\r\n:6", "$-1"])
def test_what_no_cluster_says_of_its_nodes_is_no_bug_of_ours(slots: str) -> None:
    """Nor is one that sends us on, and then to nobody."""

    def words(asked: bytes) -> str:
        told = {b"HELLO": "%1\r\n+proto\r\n:3", b"EVALSHA": f"-MOVED 1 127.0.0.1:{port}", b"SLOTS": slots}
        return next((said for command, said in told.items() if command in asked), "+OK")

    with answering(words) as port:
        store = RedisStore(places=(InetAddress(host="127.0.0.1", port=port),), cluster=True)
        server = RedisServer(store, timeout=TIMEOUT)
        with pytest.raises(StoreDownError):
            server.run(ACCOUNTS, ["x"], "check")
        server.close()


def test_after_a_failure_nobody_asks_for_a_while(tmp_path: Path) -> None:
    with opened(place(tmp_path, "redis://127.0.0.1:1", timeout=TIMEOUT)) as accounts:
        with pytest.raises(StoreDownError):
            send(accounts, charge())
        with pytest.raises(StoreDownError, match="a moment ago"):
            send(accounts, charge())
        time.sleep(REST + 0.1)  # the rest is over: somebody tries
        with pytest.raises(StoreDownError) as caught:
            send(accounts, charge())
        assert "a moment ago" not in str(caught.value)


# --- who may


@pytest.fixture(scope="module")
def guarded(needs_redis: None) -> Iterator[Redis]:
    with Redis(password="sesame", tls=True) as server:
        yield server


def guarded_place(folder: Path, server: Redis, *, password: str = "sesame", **more: Any) -> Place:
    assert server.certificates
    file = folder / "password"
    file.write_text(password + "\n")
    ca = more.get("ca", server.certificates.authority)
    return place(folder, server.inet, password_file=file, ca=ca, timeout=1.0)


def test_a_wrong_password_is_told_without_saying_it(
    guarded: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    where = guarded_place(tmp_path, guarded, password="swordfish")
    with opened(where) as accounts:
        with pytest.raises(StoreDownError) as caught:
            send(accounts, charge())
        assert "password" in str(caught.value)
        assert "swordfish" not in str(caught.value) + caplog.text + repr(vars(caught.value))
        (tmp_path / "password").write_text("sesame\n")  # a new password takes effect without a restart
        wait_for(lambda: charged(accounts))


def test_a_password_that_is_no_text_is_told_without_saying_it(guarded: Redis, tmp_path: Path) -> None:
    where = guarded_place(tmp_path, guarded)
    (tmp_path / "password").write_bytes(b"sword\xfffish\n")
    with opened(where) as accounts, pytest.raises(StoreDownError, match="no UTF-8") as caught:
        send(accounts, charge())
    assert "xff" not in str(caught.value)


def test_a_certificate_of_another_authority_is_not_believed(guarded: Redis, tmp_path: Path) -> None:
    where = guarded_place(tmp_path, guarded, ca=None)
    with opened(where) as accounts, pytest.raises(StoreDownError, match=r"(?i)certif"):
        send(accounts, charge())


def test_a_certificate_of_another_host_is_not_believed(guarded: Redis, tmp_path: Path) -> None:
    where = guarded_place(tmp_path, guarded)
    assert where.redis is not None
    elsewhere = replace(where.redis, places=(InetAddress("127.0.0.1", guarded.port),))
    with opened(replace(where, redis=elsewhere)) as accounts, pytest.raises(StoreDownError, match=r"(?i)certif"):
        send(accounts, charge())


def test_a_user_with_only_what_is_needed_is_enough(guarded: Redis, tmp_path: Path) -> None:
    """The rights that docs/operations.md names."""
    guarded.cli("ACL", "SETUSER", "meter", "on", ">sesame", "~{t*", "resetchannels", "-@all", *ACL.split())
    where = guarded_place(tmp_path, guarded)
    assert where.redis is not None
    with opened(replace(where, redis=replace(where.redis, user="meter"))) as accounts:
        assert send(accounts, charge()) == Settled()
    remote = replace(where, redis=replace(where.redis, user="meter")).ledger()
    assert [usage.used for usage in remote.each_usage(NOW)] == [1]
    assert remote.reset("sender", "alice") == 1
    remote.close()


ACL = "+evalsha +eval +get +set +del +time +scan +exists +hset +hdel +hgetall +select +cluster|slots"


# --- a cluster


def slot_of(prefix: str) -> int:
    """CRC16 of the hash tag (cluster-spec, XMODEM)."""
    return binascii.crc_hqx(prefix.encode(), 0) % 16384


def test_a_slot_that_moves_is_followed(cluster: Cluster, tmp_path: Path) -> None:
    """Asked to go on while its keys are on their way, and sent for good when they have arrived."""
    where = place(tmp_path, cluster.url)
    slot, name = slot_of(where.prefix), key(where)
    with opened(where) as accounts:
        send(accounts, charge("bob"))
        source = cluster.owner(name)
        target = cluster.other(source)
        cluster.begin_move(slot, source, target)
        assert send(accounts, charge()) == Settled()  # not there yet: ASK
        cluster.move_keys(slot, source, target)
        assert send(accounts, charge()) == Settled()
        cluster.end_move(slot, source, target)
        assert send(accounts, charge()) == Settled()  # MOVED
        assert cluster.owner(name) is target
        assert send(accounts, charge("bob")) == Settled()
    assert used(where, "alice", time.time()) == {("recipients", HOUR): 3}
    assert used(where, "bob", time.time()) == {("recipients", HOUR): 2}


def test_all_keys_of_a_message_lie_in_one_slot(cluster: Cluster, tmp_path: Path) -> None:
    where = place(tmp_path, cluster.url)
    levels, names = ("sender", "domain", "network", "total"), ("a", "b{c}")
    charges = [charge(name, level=level) for level in levels for name in names]
    with opened(where) as accounts:
        assert send(accounts, *charges) == Settled()
    remote = where.ledger()
    assert sum(usage.used for usage in remote.each_usage(time.time())) == len(charges)
    remote.close()


def test_a_node_that_has_lost_the_others_is_not_asked_for_ever(tmp_path: Path) -> None:
    """Cut off from its cluster it still answers, but only that it may not; its slots have got another owner."""
    with Cluster() as cluster:
        where = place(tmp_path, cluster.url, timeout=TIMEOUT)
        with opened(where) as accounts:
            send(accounts, charge())
            alone = cluster.owner(key(where))
            cluster.cut_off(alone, heir=cluster.other(alone))
            wait_for(lambda: "CLUSTERDOWN" in alone.cli("EXISTS", key(where), check=False))
            wait_for(lambda: charged(accounts))


def test_one_node_that_is_left_is_enough_to_find_the_others(cluster: Cluster, tmp_path: Path) -> None:
    """The nodes named first are gone; the last one knows who has our slot."""
    where = place(tmp_path, f"redis+cluster://127.0.0.1:1,127.0.0.1:2,127.0.0.1:{cluster.nodes[0].port}")
    with opened(where) as accounts:
        assert send(accounts, charge()) == Settled()


def test_a_node_that_is_killed_is_found_again_when_it_returns(needs_redis: None, tmp_path: Path) -> None:
    with Cluster() as cluster:
        where = place(tmp_path, cluster.url, timeout=TIMEOUT)
        with opened(where) as accounts:
            send(accounts, charge())
            node = cluster.owner(key(where))
            node.kill()
            with pytest.raises(StoreDownError):
                send(accounts, charge())
            node.start()
            wait_for(lambda: charged(accounts), within=30)


# --- orders


def test_orders_given_on_one_host_hold_on_the_others(shared: Redis, where: Place, tmp_path: Path) -> None:
    books = [database.open(tmp_path / f"{name}.db") for name in ("one", "two")]
    assert where.redis is not None
    exchange = RedisOrders(RedisServer(where.redis), where.prefix)

    def meet() -> list[list[tuple[str, str, str]]]:
        for book in (*books, *books):
            exchange.exchange(book, NOW)
        return [[(each.kind, each.login, each.value) for each in orders.read(book, NOW)] for book in books]

    orders.put(books[0], Order(kind="freeze", login="bob", since=NOW - 9))
    orders.put(books[1], Order(kind="limits", login="eve", value="5 messages/day", since=NOW - 8, until=NOW + DAY))
    assert meet() == [[("freeze", "bob", ""), ("limits", "eve", "5 messages/day")]] * 2
    orders.put(books[0], Order(kind="limits", login="eve", value="7 messages/day", since=NOW - 5))
    assert orders.lift(books[1], "freeze", "bob", NOW - 4)
    assert meet() == [[("limits", "eve", "7 messages/day")]] * 2
    assert not exchange.exchange(books[0], NOW), "nothing is new"
    exchange.close()


def test_orders_that_ended_long_ago_are_forgotten_by_all(where: Place, tmp_path: Path, shared: Redis) -> None:
    book = database.open(tmp_path / "one.db")
    assert where.redis is not None
    exchange = RedisOrders(RedisServer(where.redis), where.prefix)
    orders.put(book, Order(kind="freeze", login="bob", since=NOW, until=NOW + 60))
    exchange.exchange(book, NOW)
    assert shared.cli("HLEN", key(where, "orders")) == "1"
    later = NOW + 400 * DAY
    orders.forget(book, later)
    exchange.exchange(book, later)
    assert shared.cli("HLEN", key(where, "orders")) == "0"
    assert orders.all_known(book) == []
    exchange.close()


def test_an_order_that_nobody_can_read_stops_no_other(where: Place, tmp_path: Path, shared: Redis) -> None:
    book = database.open(tmp_path / "one.db")
    assert where.redis is not None
    exchange = RedisOrders(RedisServer(where.redis), where.prefix)
    good = ("freeze:bob", f'["", {NOW}, null]')
    times = ("NaN, null", "1e999, null", f"1{'0' * 400}, null", "1, NaN")
    said = ["{", "7", "[" * 5000, *(f'["", {when}]' for when in times)]
    odd = [text for nth, value in enumerate(said) for text in (f"freeze:{nth}", value)]
    half = ("freeze:eve", '["\\ud800", 1, null]')
    shared.cli("HSET", key(where, "orders"), *odd, "sing:y", '["", 1, null]', *half, *good)
    assert exchange.exchange(book, NOW)
    assert {each.login for each in orders.read(book, NOW)} == {"bob", "eve"}
    exchange.close()


def test_a_remote_ledger_needs_no_open_door(where: Place) -> None:
    """Made before anything is asked, it has connected to nobody: daemons start while Redis is down."""
    nowhere = replace(where, redis=place(where.path.parent, "redis://127.0.0.1:1").redis)
    remote: RedisLedger = nowhere.ledger()
    remote.close()
    with opened(nowhere) as accounts:
        assert accounts.settle((), submitted(), {}, NOW) == Settled()
        assert accounts.glance([charge()], NOW) is None
