"""What only the machine can tell is told before a message is accepted, at the line of its key and with the command.

Real files, modes and users. Another user than ours is `nobody`, who is on every machine and stands for Postfix too.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config import permissions, rules
from postmeter.config.check import Daemon, cannot_bind, check, whose
from postmeter.config.load import Loaded, read
from postmeter.config.permissions import ENTER, READ, WRITE, Person
from postmeter.config.problem import Problem
from postmeter.config.schema import Config, Rule
from postmeter.config.tls import of_web
from postmeter.config.values import InetAddress, UnixAddress
from tests.lab import tls

SECRET = "0123456789abcdef" * 4 + "\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everyone may enter, which pytest's own are not."""
    with TemporaryDirectory(prefix="postmeter-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def nobody() -> Person:
    found = permissions.person("nobody")
    assert found is not None
    return found


def loaded(place: Path, text: str = "", *, listen: str = "") -> Loaded:
    """Line 1 is the milter's, line 2 the journal's, what is tested begins in line 3."""
    head = f'milter: {{listen: "{listen or f"unix:{place}/milter.sock"}", socket_mode: "0666"}}\n'
    return read(f"{head}journal: {{path: {place}/journal.db}}\n{text}", "pm.yaml")


def look(config: Loaded, *, daemon: Daemon = "milter", me: Person | None = None) -> list[str]:
    return [str(problem) for problem in check(config, daemon=daemon, me=me, mail_owner="nobody")]


def test_a_good_configuration_has_no_problems(place: Path) -> None:
    assert look(loaded(place)) == []


def test_a_missing_socket_directory_is_told_with_the_command_that_makes_it(place: Path) -> None:
    me = permissions.myself()
    assert look(loaded(place, listen=f"unix:{place}/a/b/milter.sock")) == [
        f"pm.yaml:1: milter.listen: there is no directory {place}/a; "
        f"make it: install -d -o {me.name} -g nobody -m 2750 {place}/a/b"
    ]


@pytest.mark.parametrize("closed", ["a", "a/b"])
def test_a_socket_directory_that_postfix_cannot_enter_is_named(place: Path, closed: str) -> None:
    (place / "a/b").mkdir(parents=True)
    (place / closed).chmod(0o700)
    (line,) = look(loaded(place, listen=f"unix:{place}/a/b/milter.sock"))
    what = f"Postfix cannot reach the socket: nobody may not enter {place}/{closed} (mode 0700)"
    assert line == f"pm.yaml:1: milter.listen: {what}; chgrp nogroup {place}/{closed} && chmod g+x {place}/{closed}"


@needs_root
def test_the_command_for_a_closed_directory_opens_it(place: Path) -> None:
    (place / "a").mkdir(mode=0o700)
    config = loaded(place, listen=f"unix:{place}/a/milter.sock")
    (problem,) = check(config, mail_owner="nobody")
    subprocess.run(problem.fix, shell=True, check=True)
    assert look(config) == []


def test_a_symbolic_link_does_not_hide_a_closed_directory(place: Path) -> None:
    (place / "closed/in").mkdir(parents=True)
    (place / "closed").chmod(0o700)
    (place / "link").symlink_to(place / "closed/in")
    (line,) = look(loaded(place, listen=f"unix:{place}/link/milter.sock"))
    assert f"nobody may not enter {place}/closed (mode 0700)" in line


def test_a_socket_directory_that_we_cannot_write_is_told(place: Path, nobody: Person) -> None:
    lines = look(loaded(place), me=nobody)
    assert f"pm.yaml:1: milter.listen: nobody may not write in {place}; chown nobody {place}" in lines


@pytest.mark.parametrize(
    ("mode", "good"), [("0600", False), ("0640", False), ("0660", False), ("0602", True), ("0666", True)]
)
def test_a_socket_that_postfix_could_not_write_is_told(place: Path, mode: str, good: bool) -> None:
    """Its group is ours here, where nobody is not a member."""
    text = f'milter: {{listen: "unix:{place}/milter.sock", socket_mode: "{mode}", socket_group: null}}\n'
    lines = look(read(f"{text}journal: {{path: {place}/journal.db}}", "pm.yaml"))
    assert all("Postfix could not write to a socket" in line for line in lines)
    assert (lines == []) is good


@needs_root
def test_a_socket_of_postfixs_group_is_good(place: Path) -> None:
    text = f'milter: {{listen: "unix:{place}/milter.sock", socket_group: nogroup}}\n'
    assert look(read(f"{text}journal: {{path: {place}/journal.db}}", "pm.yaml")) == []


def test_a_group_that_is_not_there_is_a_warning_where_it_was_written(place: Path) -> None:
    text = f'milter: {{listen: "unix:{place}/milter.sock", socket_mode: "0666", socket_group: no-such-group}}\n'
    assert look(read(f"{text}journal: {{path: {place}/journal.db}}", "pm.yaml")) == [
        "pm.yaml:1: milter.socket_group: warning: there is no group no-such-group; make it, or name another or null"
    ]


def test_a_socket_path_has_at_most_107_bytes(place: Path) -> None:
    """The kernel is the judge: it binds the longest that we let pass and not one byte more."""
    longest = f"{place}/x".ljust(107, "x")
    assert look(loaded(place, listen=f"unix:{longest}")) == []
    assert look(loaded(place, listen=f"unix:{longest}x")) == [
        "pm.yaml:1: milter.listen: a socket's path has at most 107 bytes, this one 108; choose a shorter path"
    ]
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(longest)
    with socket.socket(socket.AF_UNIX) as bound, pytest.raises(OSError, match="too long"):
        bound.bind(longest + "x")


def test_a_file_in_the_sockets_place_is_not_overwritten(place: Path) -> None:
    (place / "milter.sock").write_text("")
    (line,) = look(loaded(place))
    assert line.startswith(f"pm.yaml:1: milter.listen: {place}/milter.sock is there and is not a socket; ")


@pytest.mark.parametrize("address", ["0.0.0.0:8891", "192.0.2.1:8891", "[::]:8891", "mail.example.com:8891"])
def test_an_inet_socket_open_to_the_network_must_be_meant(place: Path, address: str) -> None:
    (line,) = look(loaded(place, listen=f"inet:{address}"))
    assert line.startswith(f"pm.yaml:1: milter.listen: {address} can be reached from the network")
    trusting = f'milter: {{listen: "inet:{address}", trust_network: true}}\njournal: {{path: {place}/journal.db}}\n'
    assert look(read(trusting, "pm.yaml")) == []


@pytest.mark.parametrize("address", ["127.0.0.1:8891", "[::1]:8891", "localhost:8891"])
def test_a_loopback_socket_needs_no_leave(place: Path, address: str) -> None:
    assert look(loaded(place, listen=f"inet:{address}")) == []


def test_one_port_cannot_serve_twice(place: Path) -> None:
    assert look(loaded(place, "web: {listen: 127.0.0.1:8001}\nmetrics: {listen: 127.0.0.1:8001}")) == [
        "pm.yaml:4: metrics.listen: 127.0.0.1:8001 is web.listen already; give another port"
    ]


def test_the_key_that_was_written_is_blamed_and_not_a_default(place: Path) -> None:
    assert look(loaded(place, "web: {listen: 127.0.0.1:9587}")) == [
        "pm.yaml:3: web.listen: 127.0.0.1:9587 is metrics.listen already; give another port"
    ]
    (line,) = look(loaded(place, f"bounces: {{lmtp: 'unix:{place}/milter.sock'}}", listen=f"unix:{place}/milter.sock"))
    assert line == f"pm.yaml:3: bounces.lmtp: unix:{place}/milter.sock is milter.listen already; give another path"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("keep: 0", "journal.keep: warning: events are deleted before"),
        ("keep: 6d", "journal.keep: warning: events are deleted before"),
        ("keep_addresses: 0", "journal.keep_addresses: warning: 0 makes hashes of all recipients at once"),
    ],
)
def test_to_forget_at_once_is_warned_of(place: Path, keys: str, told: str) -> None:
    """Elsewhere 0 is never, and what was deleted cannot be had back."""
    config = read(f"milter: {{listen: 'inet:127.0.0.1:8891'}}\njournal: {{path: {place}/j.db, {keys}}}", "pm.yaml")
    (line,) = look(config)
    assert line.startswith(f"pm.yaml:2: {told}")
    assert look(read(f"journal: {{path: {place}/j.db, keep: 7d, keep_addresses: 1h}}", "pm.yaml"), daemon="books") == []


def test_a_missing_state_directory_is_told(place: Path) -> None:
    config = read(f"journal: {{path: {place}/state/journal.db}}", "pm.yaml")
    me = permissions.myself()
    assert look(config, daemon="books") == [
        f"pm.yaml:1: journal.path: there is no directory {place}/state; "
        f"make it: install -d -o {me.name} -m 0750 {place}/state"
    ]


def test_a_journal_that_we_cannot_write_is_told(place: Path, nobody: Person) -> None:
    place.chmod(0o777)
    (place / "journal.db").touch(mode=0o644)
    assert look(loaded(place), daemon="books", me=nobody) == [
        f"pm.yaml:2: journal.path: nobody may not write {place}/journal.db; chown nobody {place}/journal.db"
    ]


def test_a_directory_is_no_journal(place: Path) -> None:
    (place / "journal.db").mkdir()
    (line,) = look(loaded(place), daemon="books")
    assert line.startswith(f"pm.yaml:2: journal.path: {place}/journal.db is not a file; ")


def tracking(place: Path, url: str = "https://click.example.com") -> str:
    return f"tracking:\n  url: {url}\n  secrets: {place}/secrets\n"


def secrets(place: Path, text: str = SECRET, mode: int = 0o640) -> Path:
    path = place / "secrets"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_missing_secrets_are_told_only_when_links_are_tracked(place: Path) -> None:
    (line,) = look(loaded(place, tracking(place)))
    make = f"make it: mkdir -p {place} && (umask 027; openssl rand -hex 32 > {place}/secrets)"
    assert line == f"pm.yaml:5: tracking.secrets: {place}/secrets: No such file or directory; {make}"
    assert look(loaded(place, tracking(place, "null"))) == []


def test_a_domains_own_url_needs_secrets_too(place: Path) -> None:
    (line,) = look(loaded(place, "tracking:\n  domains: {a.example: {url: https://a.example}}"))
    assert line.startswith("pm.yaml:3: tracking.secrets: ")


@pytest.mark.parametrize(
    ("mode", "good"), [(0o600, True), (0o640, True), (0o644, False), (0o660, False), (0o604, False)]
)
def test_secrets_may_be_read_by_their_group_and_by_nobody_else(place: Path, mode: int, good: bool) -> None:
    secrets(place, mode=mode)
    told = (
        f"pm.yaml:5: tracking.secrets: {place}/secrets is open to others (mode {mode:04o}); chmod 0640 {place}/secrets"
    )
    assert look(loaded(place, tracking(place))) == ([] if good else [told])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no secret"),
        (SECRET + "0123\n", "line 2: not 64 hexadecimal digits"),
        ("é" * 64, "line 1: not 64 hexadecimal digits"),
    ],
)
def test_malformed_secrets_are_told_with_their_line(place: Path, text: str, fault: str) -> None:
    """What mends one must not take the others away: links ever sent need them."""
    path = secrets(place, text)
    (line,) = look(loaded(place, tracking(place)), daemon="web")
    assert fault in line
    assert f" > {path}" not in line


@needs_root
def test_the_web_user_must_be_there_and_able_to_read_the_secrets(place: Path) -> None:
    path = secrets(place)
    assert look(loaded(place, tracking(place) + "web: {user: nobody}")) == [
        f"pm.yaml:5: tracking.secrets: nobody may not read {path}; chgrp nogroup {path} && chmod 0640 {path}"
    ]
    subprocess.run(["chgrp", "nogroup", path], check=True)
    assert look(loaded(place, tracking(place) + "web: {user: nobody}")) == []
    (line,) = look(loaded(place, tracking(place) + "web: {user: no-such-user}"))
    assert line == "pm.yaml:6: web.user: there is no user no-such-user; adduser --system --group no-such-user"
    assert look(loaded(place, "web: {user: no-such-user}")) == []
    (line,) = look(loaded(place, "web: {user: no-such-user}"), daemon="web")
    assert "web.user: there is no user no-such-user" in line


def test_links_over_http_are_a_warning(place: Path) -> None:
    secrets(place)
    (problem,) = check(loaded(place, tracking(place, "http://click.example.com")), mail_owner="nobody")
    assert (problem.severity, problem.path, problem.line) == ("warning", "tracking.url", 4)


def test_rules_behind_one_for_everyone_are_told(place: Path) -> None:
    rules = "quota:\n  rules:\n  - {limits: unlimited}\n  - {login: a, limits: [1 messages/day]}\n"
    (line,) = look(loaded(place, rules))
    assert line.startswith("pm.yaml:5: quota.rules[0]: warning: this rule has no conditions")


def test_rules_of_every_level_are_looked_at(place: Path) -> None:
    """One that asks for a list of domains, and for nothing else, is a condition too."""
    (place / "names").write_text("example.com\n")
    asked = (f"domains_file: {place}/names, ", "", "login: a, ")
    rules = "[" + ", ".join(f"{{{condition}limits: unlimited}}" for condition in asked) + "]"
    lines = look(loaded(place, f"quota:\n  domains:\n    rules: {rules}\n  networks:\n    rules: {rules}\n"))
    assert [line.split(": ")[1] for line in lines] == ["quota.domains.rules[1]", "quota.networks.rules[1]"]


def test_a_file_of_names_that_cannot_be_used_is_told(place: Path, nobody: Person) -> None:
    """Missing, closed to us, a directory, or with a line that is no name."""
    (place / "closed").write_text("a\n")
    (place / "closed").chmod(0o600)
    (place / "wrong").write_text("# who\n\nalice smith\n")
    names = ("no", "closed", "", "wrong")
    rules = "".join(f"  - {{logins_file: {place}/{name}, limits: unlimited}}\n" for name in names)
    config = loaded(place, f"quota:\n  rules:\n{rules}")
    told = [str(problem) for problem in check(config, me=nobody, mail_owner="nobody") if "rules" in problem.path]
    assert told == [
        f"pm.yaml:5: quota.rules[0].logins_file: {place}/no: No such file or directory; "
        f"name another, or make it: touch {place}/no",
        f"pm.yaml:6: quota.rules[1].logins_file: nobody may not read {place}/closed (mode 0600); "
        f"chown nobody {place}/closed && chmod u+r {place}/closed",
        f"pm.yaml:7: quota.rules[2].logins_file: {place} is not a file; name a file",
        f"pm.yaml:8: quota.rules[3].logins_file: {place}/wrong line 3: 'alice smith' is not a name; "
        "write it without spaces",
    ]


def test_each_daemon_is_told_only_what_concerns_it(tmp_path: Path) -> None:
    missing = f"milter: {{listen: 'unix:{tmp_path}/no/a.sock'}}\njournal: {{path: {tmp_path}/no/journal.db}}\n"
    config = read(f"{missing}tracking: {{url: https://a.example, secrets: {tmp_path}/no/secrets}}", "pm.yaml")
    found: dict[Daemon, list[str]] = {
        daemon: [problem.path for problem in check(config, daemon=daemon, mail_owner="nobody")]
        for daemon in ("milter", "web", "books")
    }
    assert found == {
        "milter": ["milter.listen", "journal.path", "tracking.secrets"],
        "web": ["tracking.secrets"],
        "books": ["journal.path"],
    }


def test_a_configuration_without_its_lines_is_checked_too(place: Path) -> None:
    config = loaded(place, listen="inet:0.0.0.0:8891").config
    (problem,) = check(config, mail_owner="nobody")
    assert str(problem).startswith("configuration: milter.listen: ")


@needs_root
def test_root_checks_for_the_user_that_the_state_directory_belongs_to(place: Path, nobody: Person) -> None:
    config = loaded(place).config
    assert whose(config).uid == 0
    os.chown(place, nobody.uid, -1)
    assert whose(config) == nobody
    assert whose(Config()).uid == 0


def in_use() -> tuple[OSError, InetAddress]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        first.listen()
        try:
            second.bind(first.getsockname())
        except OSError as error:
            return error, InetAddress("127.0.0.1", first.getsockname()[1])
    raise AssertionError("two sockets on one port")


def test_a_port_in_use_is_told_with_the_command_that_finds_its_owner(place: Path) -> None:
    error, address = in_use()
    problem = cannot_bind(loaded(place), "milter.listen", address, error)
    assert str(problem) == (
        f"pm.yaml:1: milter.listen: {address} is in use; "
        f"stop what listens there (ss -tlnp sport = :{address.port}), or change it"
    )


def test_an_address_of_another_host_cannot_be_bound(place: Path) -> None:
    with socket.socket() as own, pytest.raises(OSError, match="assign") as caught:
        own.bind(("192.0.2.1", 8891))
    problem = cannot_bind(loaded(place), "web.listen", InetAddress("192.0.2.1", 8891), caught.value)
    assert problem.what == "192.0.2.1:8891 is no address of this host"


def test_any_other_failure_to_bind_keeps_the_systems_words(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as own, pytest.raises(OSError, match="No such file") as caught:
        own.bind(str(place / "no/milter.sock"))
    problem = cannot_bind(loaded(place), "milter.listen", UnixAddress(place / "no/milter.sock"), caught.value)
    assert problem == Problem(
        "pm.yaml", 1, "milter.listen", f"cannot listen on unix:{place}/no/milter.sock: No such file or directory",
        "give another address",
    )  # fmt: skip


@needs_root
@pytest.mark.parametrize(("uid", "gid"), [("nobody", 0), (0, "nogroup"), (0, 0)])
def test_modes_grant_what_the_kernel_grants(
    place: Path, nobody: Person, uid: str | int, gid: str | int, ask: Callable[[Path], list[int]]
) -> None:
    """Files of the user's own, of the user's group, and of others; the kernel is the oracle."""
    modes = range(0, 0o1000, 5)  # every digit at every place
    files = place / "files"
    files.mkdir()
    for mode in modes:
        path = files / f"{mode:04o}"
        path.touch()
        os.chown(path, nobody.uid if uid else 0, nobody.gid if gid else 0)
        path.chmod(mode)
    ours = [
        sum(bit for bit in (READ, WRITE, ENTER) if permissions.may(nobody, (files / f"{mode:04o}").stat(), bit))
        for mode in modes
    ]
    assert ours == ask(files)


@pytest.fixture
def ask() -> Callable[[Path], list[int]]:
    """What nobody may do with each file of a directory, in the order of their names, by access(2)."""
    program = (
        "import os, sys\n"
        "for name in sorted(os.listdir(sys.argv[1])):\n"
        "    path = os.path.join(sys.argv[1], name)\n"
        "    print(sum(bit for bit in (4, 2, 1) if os.access(path, bit)))\n"
    )

    def run(files: Path) -> list[int]:
        command = ["/usr/bin/python3", "-c", program, str(files)]
        done = subprocess.run(command, user="nobody", group="nogroup", extra_groups=[], capture_output=True, check=True)
        return [int(line) for line in done.stdout.split()]

    return run


def redis(place: Path, more: str = "", *, store: str = "rediss://redis.example.com") -> Loaded:
    return loaded(place, f"quota:\n  store: {store}\n{more}")


def test_a_redis_with_its_password_and_authority_in_order_has_no_problems(place: Path) -> None:
    (place / "password").write_text("sesame\n")
    (place / "password").chmod(0o600)
    assert look(redis(place, f"  store_password_file: {place}/password\n")) == []
    assert look(redis(place, store="redis+unix:///run/redis/redis.sock"), daemon="books") == []


def test_a_password_file_that_is_missing_open_or_empty_is_told(place: Path) -> None:
    path = place / "password"
    config = redis(place, f"  store_password_file: {path}\n")
    me = permissions.myself()
    make = f"write Redis's password into it: install -D -m 0600 -o {me.name} /dev/stdin {path}"
    at = "pm.yaml:5: quota.store_password_file:"
    assert look(config) == [f"{at} {path}: No such file or directory; {make}"]
    path.write_text("")
    path.chmod(0o644)
    assert look(config) == [f"{at} {path} is open to others (mode 0644); chmod 0640 {path}"]
    path.chmod(0o640)
    assert look(config) == [f"{at} {path} is empty; {make}"]


def test_an_authority_that_is_none_is_told(place: Path) -> None:
    (place / "ca.pem").write_text("nothing")
    assert look(redis(place, f"  store_ca: {place}/ca.pem\n")) == [
        f"pm.yaml:5: quota.store_ca: {place}/ca.pem holds no certificate in PEM; name the authority's certificate"
    ]


def test_a_password_that_goes_over_the_network_in_the_clear_is_warned_of(place: Path) -> None:
    (place / "password").write_text("sesame")
    (place / "password").chmod(0o600)
    more = f"  store_password_file: {place}/password\n"
    (told,) = look(redis(place, more, store="redis://redis.example.com"))
    assert "can be read on its way" in told
    assert look(redis(place, more, store="redis://127.0.0.1")) == []


def test_a_password_for_no_redis_is_warned_of(place: Path) -> None:
    (told,) = look(redis(place, "  store_password_file: /etc/postmeter/redis.password\n", store="sqlite"))
    assert told.startswith("pm.yaml:5: quota.store_password_file: warning: is not used")


@pytest.mark.parametrize("mode", ["on", "observe"])
def test_a_brake_that_could_stop_nobody_is_warned_of(place: Path, mode: str) -> None:
    (told,) = look(loaded(place, f"quota:\n  brake: {{mode: {mode}, signs: []}}\n"))
    assert "quota.brake.signs: warning: without any the brake stops nobody" in told
    assert look(loaded(place, "quota:\n  brake: {mode: on, signs: [bounces]}\n")) == []


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ('{login: "*@x.example", LIMITS}, {login: news@x.example, LIMITS}', 0),
        ('{login: "*@x.example", LIMITS}, {login: "NEWS*@x.example", service: S, LIMITS}', 0),
        ("{login: a, LIMITS}, {login: b, LIMITS}, {login: A, LIMITS}", 0),
        ("{network: 192.0.2.0/24, LIMITS}, {network: 192.0.2.0/24, over: hold, LIMITS}", 0),
        ('{login: "*@x.example", service: S, LIMITS}, {login: news@x.example, LIMITS}', None),
        ('{login: news@x.example, LIMITS}, {login: "*@x.example", LIMITS}', None),
        ('{login: "a?b", LIMITS}, {login: "a*b", LIMITS}, {login: "*y*", LIMITS}, {login: "a[xy]c", LIMITS}', None),
    ],
)
def test_a_rule_behind_one_that_takes_all_its_mail_is_warned_of(place: Path, listed: str, told: int | None) -> None:
    text = listed.replace("LIMITS", "limits: [9 recipients/day]")
    lines = look(loaded(place, f"quota: {{rules: [{text}]}}"))
    last = listed.count("{") - 1
    what = f"this rule is never reached: all that it is for is for quota.rules[{told}]"
    assert [line.partition("; ")[0] for line in lines] == (
        [] if told is None else [f"pm.yaml:3: quota.rules[{last}]: warning: {what}"]
    )


@given(st.lists(st.text("ab*?[]", min_size=1, max_size=4), min_size=2, max_size=4))
def test_a_rule_that_is_said_to_be_never_reached_is_not(globs: list[str]) -> None:
    """By every login of up to four letters."""
    logins = ["".join(letters) for size in range(5) for letters in product("ab", repeat=size)]
    for index, before in rules.covered([Rule(login=glob) for glob in globs]):
        for login in logins:
            assert not fnmatchcase(login, globs[index]) or fnmatchcase(login, globs[before])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('senders: {from: {"@example.org": any}}', "senders.from.@example.org: warning: nobody's login"),
        ('quota: {rules: [{login: "@x.example", limits: unlimited}]}', "quota.rules[0].login: warning: nobody's login"),
        ('quota: {groups: {staff: [a, "@x.example"]}}', "quota.groups.staff[1]: warning: nobody's login"),
        ('quota: {brake: {except: ["@x.example"]}}', "quota.brake.except[0]: warning: nobody's login"),
        ('quota: {exempt: ["*@x.example"]}', "quota.exempt[0]: warning: nobody's address"),
        ('tracking: {bulk_senders: ["*@x.example"]}', "tracking.bulk_senders[0]: warning: nobody's address"),
        ('tracking: {logins: {"*@x.example": {opens: true}}}', "tracking.logins.*@x.example: warning: nobody's login"),
        ('tracking: {switches: [a, "@x.example"]}', "tracking.switches[1]: warning: nobody's login"),
        ('suppression: {bypass: ["*@x.example"]}', "suppression.bypass[0]: warning: nobody's login"),
    ],
)
def test_a_name_that_can_be_nobodys_is_warned_of(place: Path, text: str, told: str) -> None:
    """The other list's form of a pattern: it would be taken, and hold for no one."""
    (line,) = look(loaded(place, text))
    assert line.startswith(f"pm.yaml:3: {told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("senders: {from: {a@x.example: [any]}}", "senders.from.a@x.example: warning: in a list 'any'"),
        ("tracking: {skip_links: [default, invoice]}", "tracking.skip_links: warning: in a list 'default'"),
        ("tracking: {switches: [all]}", "tracking.switches: warning: in a list 'all'"),
        ("tracking: {logins: {a: {switches: [none]}}}", "tracking.logins.a.switches: warning: in a list 'none'"),
    ],
)
def test_a_word_that_has_lost_its_meaning_in_brackets_is_warned_of(place: Path, text: str, told: str) -> None:
    """With `[default, invoice]` links that reset a password are tracked, which nobody has asked for."""
    (line,) = look(loaded(place, text))
    assert line.startswith(f"pm.yaml:3: {told} is a name like any other; ")


def test_patterns_stand_where_they_are_known(place: Path) -> None:
    text = (
        'senders: {from: {"*@example.org": any, "*": any}}\n'
        'quota: {exempt: ["@x.example"], groups: {staff: ["*@x.example"]}, brake: {except: ["*@x.example"]}}\n'
        'tracking: {bulk_senders: ["@x.example", news], switches: [a@x.example], logins: {b: {opens: true}}}\n'
    )
    assert look(loaded(place, text)) == []


def test_a_missing_redis_library_is_told_with_its_package(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postmeter.config.remote.find_spec", lambda name: None)
    (told,) = look(redis(place))
    assert told == "pm.yaml:4: quota.store: Python's redis library is not there; apt-get install python3-redis"


def test_a_certificate_and_its_key_go_together(tmp_path: Path) -> None:
    """Either alone, files that are missing, do not fit, or whose key others may read, are told before the start."""
    made = [tls.make(tmp_path / name, host="click.example.com") for name in ("one", "two")]
    key = tmp_path / "key.pem"
    key.write_bytes(made[0].server.read_bytes().partition(b"-----BEGIN CERTIFICATE")[0])
    key.chmod(0o600)

    def told(text: str) -> list[str]:
        found = of_web(read(f"web: {{{text}}}".encode(), "pm.yaml"), permissions.myself())
        return [f"{problem.path}: {problem.what}" for problem in found]

    assert told("") == []
    assert told(f"certificate: {made[0].server}, key: {key}") == []
    assert told(f"certificate: {made[0].server}") == ["web.certificate: a certificate without its key"]
    assert told(f"key: {key}") == ["web.key: a key without its certificate"]
    assert told(f"certificate: {tmp_path}/none.pem, key: {key}")[0].startswith("web.certificate: ")
    (wrong,) = told(f"certificate: {made[1].authority}, key: {key}")
    assert "cannot be used" in wrong
    key.chmod(0o604)
    assert told(f"certificate: {made[0].server}, key: {key}") == [f"web.key: {key} is open to others"]


def test_the_socket_of_what_comes_back_must_be_reachable_too(place: Path) -> None:
    (place / "secrets").write_text("0" * 64 + "\n")
    (place / "secrets").chmod(0o600)
    domains = f"domains: {{example.com: bounces@example.com}}, secrets: {place}/secrets"
    good = f"bounces: {{{domains}, lmtp: unix:{place}/feedback.sock}}\n"
    assert look(loaded(place, good), daemon="books") == []
    (line,) = look(loaded(place, good.replace("feedback.sock", "missing/feedback.sock")), daemon="books")
    assert line.startswith(f"pm.yaml:3: bounces.lmtp: there is no directory {place}/missing")
    (line,) = look(loaded(place, "bounces: {lmtp: 127.0.0.1:9587}\n".replace("127", "inet:127")), daemon="books")
    assert "is metrics.listen already" in line


@pytest.mark.parametrize("daemon", ["milter", "books"])
def test_tags_need_the_secrets_of_bounces(place: Path, daemon: Daemon) -> None:
    text = f"bounces: {{domains: {{example.com: b@example.com}}, secrets: {place}/none}}\n"
    assert [line for line in look(loaded(place, text), daemon=daemon) if "bounces.secrets" in line]
    assert look(loaded(place, f"bounces: {{secrets: {place}/none}}\n"), daemon=daemon) == []
