"""`postmeter check-config` says what is wrong, a line each on stderr, or what a good configuration does."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postmeter.cli.main import main
from postmeter.config import maillog


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that everyone may enter, Postfix too. postconf(1) rests a second before it says that it finds none
    of its files, or where they were written just now: it gets old ones.
    """
    with TemporaryDirectory(prefix="postmeter-test-") as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "postfix").mkdir()
        (place / "postfix/main.cf").write_text("myhostname = mail.example.com\n")
        (place / "postfix/master.cf").touch()
        os.utime(place / "postfix/main.cf", (0, 0))
        monkeypatch.setenv("MAIL_CONFIG", str(place / "postfix"))
        monkeypatch.setattr(maillog, "_JOURNALS", ())  # who may read this machine's log is not asked here
        monkeypatch.setattr(maillog, "MAIL_LOG", place / "mail.log")
        yield place


def write(place: Path, text: str = "") -> str:
    """Two lines for where things lie; what is tested begins in line 3."""
    path = place / "postmeter.yaml"
    head = (
        f'milter: {{listen: "unix:{place}/milter.sock", socket_mode: "0666"}}\njournal: {{path: {place}/journal.db}}\n'
    )
    path.write_text(head + text)
    return str(path)


def key(path: Path, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(mode)
    return path


def signing(*files: Path) -> str:
    entries = "".join(f"    - {{selector: s{n}, file: {file}}}\n" for n, file in enumerate(files))
    return f"dkim:\n  sign:\n  - domain: example.com\n    keys:\n{entries}"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], list[str]]:
    code = main(["check-config", *arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def test_a_good_file_is_told_in_plain_words(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "secrets").write_text("0" * 64)
    (place / "secrets").chmod(0o640)
    text = (
        "quota: {limits: [500 recipients/day, 1G/day], rules: [{login: a, limits: unlimited}]}\n"
        f"tracking: {{url: https://click.example.com, secrets: {place}/secrets}}\n"
        "mode: observe\n"
    )
    path = write(place, text + signing(key(place / "keys/a.pem")))
    assert run(capsys, path) == (
        0,
        [
            f"{path}: OK",
            "  mode     observe: nothing is refused, changed or signed",
            f"  listens  unix:{place}/milter.sock (Postfix), 127.0.0.1:8587 (links), 127.0.0.1:9587 (metrics)",
            "  ours     mail of logins, service ORIGINATING, network 127.0.0.0/8 (from a domain of ours), "
            "network ::1/128 (from a domain of ours)",
            "  limits   500 recipients/day, 1G/day, 1 rule; over: defer",
            "  signs    example.com (s0)",
            "  tracks   links in bulk mail, by https://click.example.com",
            f"  journal  {place}/journal.db",
        ],
        [],
    )


def test_the_least_file_limits_signs_and_tracks_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "-c", write(place))
    assert code == 0
    assert [line.split(maxsplit=1)[1] for line in out if line.split()[0] in ("limits", "signs", "tracks")] == [
        "nothing"
    ] * 3


def test_every_level_of_quotas_and_what_few_have_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quota = (
        "quota:\n  store: redis://127.0.0.1\n  domains: {limits: [9 messages/day]}\n  total: {limits: [1G/day]}\n"
        "  networks: {rules: [{service: smtps, limits: unlimited}]}\n"
        "  brake: {mode: on, action: hold}\n"
    )
    code, out, _ = run(capsys, write(place, quota))
    assert code == 0
    assert [line for line in out if line.split()[0] in ("limits", "counts", "holds", "brakes")] == [
        "  limits   a From domain: 9 messages/day; a network: 1 rule; all mail: 1G/day; over: defer",
        "  counts   in Redis at 127.0.0.1:6379; when that is gone: accept",
        "  holds    at most 100 messages of a sender, for postmeter-release.timer to let go",
        "  brakes   stolen accounts: on, to hold; signs: network, bounces, strangers",
    ]


def test_a_mistake_in_the_file_ends_with_78(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(place, "lgo: {}\n")
    assert run(capsys, path) == (78, [], [f"{path}:3: lgo: unknown key; did you mean log?"])


def test_a_mistake_of_the_machine_ends_with_78(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(place, f"tracking: {{url: https://a.example, secrets: {place}/secrets}}\n")
    code, out, (line,) = run(capsys, path)
    assert (code, out) == (78, [])
    assert line.startswith(f"{path}:3: tracking.secrets: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bounces: {lmtp: unix:/nowhere/lmtp.sock}", "bounces.lmtp: there is no directory /nowhere"),
        ("bounces: {lmtp: unix:/tmp/" + "x" * 120 + "}", "bounces.lmtp: a socket's path has at most 107 bytes"),
        ("quota: {store: 'redis://127.0.0.1', store_password_file: /nowhere/pw}", "quota.store_password_file: there"),
    ],
)
def test_what_would_keep_the_books_alone_from_starting_is_told_too(
    place: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    path = write(place, text)
    code, _, err = run(capsys, path)
    assert (code, len(err)) == (78, 1)
    assert err[0].startswith(f"{path}:3: {told}")


def test_what_ships_events_is_looked_at_before_the_books_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "postmeter.yaml"
    path.write_text(
        f'milter: {{listen: "unix:{place}/milter.sock", socket_mode: "0666"}}\n'
        f"journal: {{path: {place}/journal.db, ship_to: 'postgresql:///pm', ship_password_file: /nowhere/pw}}\n"
    )
    code, _, err = run(capsys, str(path))
    assert code == 78
    assert any(line.startswith(f"{path}:2: journal.ship_password_file: there is no directory") for line in err)


def test_a_warning_is_told_and_does_no_harm(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = "quota: {rules: [{limits: unlimited}, {login: a, limits: unlimited}]}\n"
    code, out, (line,) = run(capsys, write(place, rules))
    assert (code, out[0]) == (0, f"{place}/postmeter.yaml: OK")
    assert ":3: quota.rules[0]: warning: " in line


def test_a_key_that_is_not_there_is_told_at_its_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(place, signing(key(place / "keys/a.pem"), place / "keys/b.pem"))
    code, _, (line,) = run(capsys, path)
    assert code == 78
    assert line.startswith(f"{path}:8: dkim.sign[0].keys[1].file: {place}/keys/b.pem: no such file; ")


def test_a_key_that_others_can_read_is_told_with_the_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(place, signing(key(place / "keys/a.pem", 0o644)))
    code, _, (line,) = run(capsys, path)
    assert code == 78
    assert line.startswith(f"{path}:7: dkim.sign[0].keys[0].file: {place}/keys/a.pem: ")
    assert "mode 0644" in line
    assert line.endswith(f"; chmod o-rwx {place}/keys/a.pem")


def test_a_directory_of_keys_that_others_can_write_is_told_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(place, signing(key(place / "keys/a.pem"), key(place / "keys/b.pem")))
    (place / "keys").chmod(0o777)
    code, _, (line,) = run(capsys, path)
    assert code == 78
    assert line.startswith(f"{path}:7: dkim.sign[0].keys[0].file: {place}/keys: ")
    assert "mode 0777" in line


def test_a_key_that_holds_none_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = key(place / "keys/a.pem")
    bad.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    code, _, (line,) = run(capsys, write(place, signing(bad)))
    assert code == 78
    assert ":7: dkim.sign[0].keys[0].file: " in line


def auto(place: Path, *more: str) -> str:
    (place / "keys").mkdir(mode=0o755)
    lines = ["dkim:", f"  keys_dir: {place}/keys", *more, "  sign:", "    - {domain: example.com, keys: auto}", ""]
    return "\n".join(lines)


def test_a_directory_of_keys_is_told_at_the_line_of_its_domain(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = write(place, auto(place)), place / "keys/example.com"
    code, _, (line,) = run(capsys, path)
    assert code == 78
    assert line.startswith(f"{path}:6: dkim.sign[0].keys: {folder}: no such directory; postmeter dkim new ")
    key(folder / "pm1.pem")
    (folder / "pm1.txt").write_text("v=DKIM1")
    code, out, (line,) = run(capsys, path)
    assert (code, "  signs    example.com (auto)" in out) == (0, True)
    assert line.startswith(f"{path}:6: dkim.sign[0].keys: warning: {folder}/pm1.txt: is not used; ")


def test_mail_must_not_outlive_its_signature_nor_what_is_known_of_it_in_the_queue(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for postconf(1), which answers as on a host with a longer queue."""
    program = place / "bin/postconf"
    program.parent.mkdir()
    asked = "-h maximal_queue_lifetime bounce_queue_lifetime"
    program.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] && echo 10d && echo 36h\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for expire, problems in (("11d", 1), ("12d", 0)):
        path = write(place, f"dkim: {{expire: {expire}}}\n")
        code, _, lines = run(capsys, path)
        assert (code, len(lines)) == ((78, 1) if problems else (0, 0))
        assert all(": dkim.expire: mail stays up to 10d in Postfix's queue" in line for line in lines)
        assert all(line.endswith("; give 12d or more") for line in lines)
    for forget, warnings in (("10d", 1), ("11d", 0)):
        path = write(place, f"delivery: {{forget: {forget}}}\n")
        code, _, lines = run(capsys, path)
        assert (code, len(lines)) == (0, warnings)
        assert all(": delivery.forget: warning: mail stays up to 10d in Postfix's queue" in line for line in lines)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root checks for another user")
def test_root_sees_that_the_daemon_may_not_list_its_keys(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = write(place, auto(place)), place / "keys/example.com"
    file = key(folder / "pm1.pem")
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(place, nobody, -1)
    os.chown(file, nobody, -1)
    folder.chmod(0o711)
    code, _, (line,) = run(capsys, path)
    assert code == 78
    assert line.endswith(f"dkim.sign[0].keys: nobody may not list {folder} (mode 0711); chown nobody {folder}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root checks for another user")
def test_root_checks_for_the_owner_of_the_state_directory(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key is root's alone: root could read it, the daemon cannot."""
    path, file = write(place, signing(key(place / "keys/a.pem"))), place / "keys/a.pem"
    assert run(capsys, path)[0] == 0
    os.chown(place, pwd.getpwnam("nobody").pw_uid, -1)
    fix = f"chown nobody {file} && chmod u+r {file}"
    told = f"{path}:7: dkim.sign[0].keys[0].file: nobody may not read {file} (mode 0600); {fix}"
    assert run(capsys, path) == (78, [], [told])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_who_is_not_the_daemons_user_is_told_first_whom_to_be(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands behind it would give the daemons' files to him."""
    daemon, somebody = pwd.getpwnam("daemon"), pwd.getpwnam("nobody")
    os.chown(place, daemon.pw_uid, daemon.pw_gid)
    path = write(place)
    Path(path).write_text(f"journal: {{path: {place}/journal.db}}\n")  # so what is wrong with the socket has no line
    os.seteuid(somebody.pw_uid)
    try:
        code, _, lines = run(capsys, path)
    finally:
        os.seteuid(0)
    assert code == 78
    assert any(f"{path}: milter.listen: " in line for line in lines)
    assert lines[0].startswith(f"{path}: warning: nobody is not daemon, whose the journal's directory is")
    assert lines[0].endswith("; run it as root, or as daemon")
    assert not any("is not daemon" in line for line in run(capsys, path)[2])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
@pytest.mark.parametrize("words", [("dkim", "check"), ("dkim", "dns"), ("explain", "/dev/null")])
def test_who_may_not_read_the_keys_is_told_whom_to_be(
    place: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Else he opens them to himself, as the command behind it says."""
    file = key(place / "keys" / "k.pem")
    path = write(place, f"dkim: {{sign: [{{domain: example.com, keys: [{{selector: k, file: {file}}}]}}]}}\n")
    daemon = pwd.getpwnam("daemon")
    for owned in (place, file.parent, file):
        os.chown(owned, daemon.pw_uid, daemon.pw_gid)
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        assert main([*words, "-c", path]) != 0
    finally:
        os.seteuid(0)
    assert "run it as root, or as daemon" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_table_that_the_daemon_may_not_read_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = key(place / "keys" / "a")
    (place / "key.table").write_text(f"a example.com:a:{file}\n")
    (place / "signing.table").write_text("example.com a\n")
    (place / "signing.table").chmod(0o600)
    for owned in (place, place / "keys", file):
        os.chown(owned, pwd.getpwnam("nobody").pw_uid, -1)
    tables = f"{{key_table: {place}/key.table, signing_table: {place}/signing.table}}"
    path = write(place, f"dkim:\n  opendkim_tables: {tables}\n")
    code, _, err = run(capsys, path)
    told = f"{path}:4: dkim.opendkim_tables.signing_table: nobody may not read {place}/signing.table (mode 0600); "
    assert (code, [line[: len(told)] for line in err]) == (78, [told])


@pytest.mark.parametrize("key", ["delivery: {providers", "web: {robots"])
def test_a_list_that_is_not_there_is_told_once_and_plainly(
    place: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    path = write(place, f"{key}: {place}/nothing}}\n")
    code, _, [line] = run(capsys, path)
    assert code == 78
    told, _, fix = line.partition("; ")
    assert told == f"{path}:3: {key.replace(': {', '.')}: {place}/nothing: No such file or directory"
    assert fix.startswith("name ")


def test_a_list_of_providers_that_is_none_is_named_with_its_line(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "providers").write_text("*.example.com, house\n*example.net, other house\n")
    code, _, said = run(capsys, write(place, f"delivery: {{providers: {place}/providers}}\n"))
    assert code == 78
    assert any(f"{place}/providers: line 2: " in line and "delivery.providers" in line for line in said), said
