"""What attach would change is undone by detach to the value, whatever lists and services there are."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.cli.attach import _agreed
from postmeter.config.load import loads
from postmeter.doctor import attaching
from postmeter.doctor.attaching import MILTER, PlanError, Step
from postmeter.doctor.mailer import Mailer, Service, split

CONFIG = loads("")
QUEUE = "/var/spool/postfix"
DEFAULTS = {"queue_directory": QUEUE, "smtpd_milters": "", "non_smtpd_milters": ""}

milters = st.sampled_from(["unix:a", "inet:127.0.0.1:1", "{ unix:b, default_action=accept }", "$others"])
lists = st.one_of(st.none(), st.lists(milters, max_size=3, unique=True).map(", ".join))


def mailer(own: Mapping[str, str], services: Sequence[Service]) -> Mailer:
    """Postfix as it would tell of these values: `$name` put in, and what main.cf lacks by its default."""

    def expand(value: str) -> str:
        for name, text in own.items():
            value = value.replace(f"${name}", text)
        return value

    values = {**DEFAULTS, **{name: expand(value) for name, value in own.items()}}
    told = [replace(each, options={name: expand(value) for name, value in each.raw.items()}) for each in services]
    return Mailer(values, own, tuple(told))


def service(name: str, raw: Mapping[str, str]) -> Service:
    line = " ".join([name.replace("/", " "), "n - y - - smtpd", *(f"-o {{ {key} = {raw[key]} }}" for key in raw)])
    return Service(name, "smtpd", raw=raw, line=line)


def apply(before: Mailer, steps: Sequence[Step]) -> Mailer:
    """As postconf(1) would."""
    own, raw = dict(before.own), {each.name: dict(each.raw) for each in before.services}
    for step in steps:
        place, _, name = step.name.rpartition("/")
        table = raw[place] if place else own
        assert table.get(name) == step.was
        if step.value is None:
            del table[name]
        else:
            table[name] = step.value
    return mailer(own, [service(each.name, raw[each.name]) for each in before.services])


def effective(it: Mailer) -> dict[str, object]:
    """What each service and sendmail(1)'s mail gets, and the name by which a milter knows it."""
    found: dict[str, object] = {"": split(it.value("non_smtpd_milters"))}
    for each in it.services:
        found[each.name] = (split(it.value("smtpd_milters", each)), it.value("milter_macro_daemon_name", each))
    return found


@given(main=lists, local=lists, first=lists, second=lists, name=st.sampled_from([None, "MINE", "ORIGINATING"]))
def test_detach_gives_back_what_was_there(
    main: str | None, local: str | None, first: str | None, second: str | None, name: str | None
) -> None:
    own = {"smtpd_milters": main, "non_smtpd_milters": local, "others": "unix:c"}
    options = {"smtpd_milters": first, "milter_macro_daemon_name": name}
    before = mailer(
        {key: value for key, value in own.items() if value is not None},
        [
            service("smtp/inet", {}),
            service("submission/inet", {key: value for key, value in options.items() if value is not None}),
            service("465/inet", {"smtpd_milters": second} if second is not None else {}),
        ],
    )
    attached = apply(before, attaching.attach(before, CONFIG))
    for old, each in zip(before.submissions(), attached.submissions(), strict=True):
        assert attaching.has(attached, CONFIG, each)
        assert split(attached.value("smtpd_milters", each))[:-1] == split(before.value("smtpd_milters", old))
    assert attaching.has(attached, CONFIG, None)
    assert effective(attached)["smtp/inet"] == effective(before)["smtp/inet"]
    assert attaching.attach(attached, CONFIG) == []
    after = apply(attached, attaching.detach(attached))
    assert effective(after) == effective(before)
    assert not {MILTER, attaching.NAME} & set(after.own)
    assert attaching.detach(after) == []


def test_without_a_submission_service_all_of_them_get_it() -> None:
    before = mailer({"smtpd_milters": "unix:a"}, [service("smtp/inet", {})])
    steps = attaching.attach(before, CONFIG)
    assert ("smtpd_milters", "unix:a, $postmeter_milter") in [(step.name, step.value) for step in steps]


CALLED = {"milter_macro_daemon_name": "ORIGINATING"}


@pytest.mark.parametrize("name", ["smtp/inet", "192.0.2.1:25/inet", "smtpd/pass"])
def test_strangers_are_not_made_senders_of_ours(name: str) -> None:
    """The name in main.cf is that of port 25 too, and says that its mail is ours: any From would be signed."""
    with pytest.raises(PlanError, match="postconf -X milter_macro_daemon_name, and try again"):
        attaching.attach(mailer(CALLED, [service(name, {})]), CONFIG)
    with pytest.raises(PlanError, match=f"postconf -P -X {name}/milter_macro_daemon_name"):
        attaching.attach(mailer({}, [service(name, CALLED)]), CONFIG, wanted=[name])
    named = attaching.attach(mailer({}, [service(name, {})]), CONFIG, wanted=[name])
    assert [step.name for step in named] == [MILTER, "non_smtpd_milters", f"{name}/smtpd_milters"]
    users = service("submission/inet", {})
    assert attaching.attach(mailer(CALLED, [service(name, {}), users]), CONFIG)
    closed = service(name, {"smtpd_client_restrictions": "permit_mynetworks, reject"})
    assert attaching.attach(mailer(CALLED, [closed]), CONFIG)
    for alone in ("127.0.0.1, [::1]", "loopback-only"):
        assert attaching.attach(mailer({**CALLED, "inet_interfaces": alone}, [service(name, {})]), CONFIG)
    attached = {**CALLED, "smtpd_milters": "unix:postmeter/milter.sock"}  # by hand, and the doctor's to tell
    assert attaching.attach(mailer({}, [service(name, attached)]), CONFIG, wanted=[name])
    assert attaching.attach(mailer(CALLED, [service("127.0.0.1:25/inet", {})]), CONFIG)


@pytest.mark.parametrize("local", ["$smtpd_milters", "unix:z, ${smtpd_milters}", "$mine"])
def test_a_list_that_holds_the_other_one_has_the_milter_once(local: str) -> None:
    """As OpenDKIM's instructions have it; met twice, a message would be charged twice."""
    own = {"smtpd_milters": "unix:a", "mine": "$(smtpd_milters), unix:y", "non_smtpd_milters": local}
    before = mailer(own, [service("smtp/inet", {})])
    steps = attaching.attach(before, CONFIG)
    assert [step.name for step in steps] == [MILTER, "smtpd_milters"]
    assert attaching.detach(apply(before, steps))[0].value == "unix:a"


def test_a_list_of_all_services_that_holds_the_local_one_is_refused() -> None:
    before = mailer({"smtpd_milters": "unix:a, $non_smtpd_milters"}, [service("submission/inet", {})])
    with pytest.raises(PlanError, match=r"smtpd_milters holds \$non_smtpd_milters"):
        attaching.attach(before, CONFIG)


def test_a_list_with_braces_is_written_as_a_line_and_other_options_stay() -> None:
    raw = {"smtpd_milters": "{ unix:b, x=y }", "smtpd_sasl_auth_enable": "yes"}
    line = "submission inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes -o { smtpd_milters = { unix:b, x=y } } -v"
    it = mailer({}, [Service("submission/inet", "smtpd", raw=raw, line=line)])
    (step,) = [each for each in attaching.attach(it, CONFIG) if each.line]
    assert step.arguments == (
        "-M",
        "-e",
        "submission/inet=submission inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes -v "
        "-o { smtpd_milters = { unix:b, x=y }, $postmeter_milter }",
    )


def test_a_milter_that_the_administrator_has_tuned_stays() -> None:
    tuned = "{ unix:postmeter/milter.sock, default_action=quarantine }"
    it = mailer({MILTER: tuned}, [service("submission/inet", {})])
    assert MILTER not in [step.name for step in attaching.attach(it, CONFIG)]


def test_what_was_written_by_hand_is_told_and_left_alone() -> None:
    it = mailer({"non_smtpd_milters": "unix:postmeter/milter.sock"}, [])
    assert attaching.detach(it) == []
    assert attaching.remaining(it, CONFIG) == ["non_smtpd_milters"]


def test_a_socket_that_a_chroot_hides_is_refused() -> None:
    config = loads("milter: {listen: unix:/run/postmeter/milter.sock}")
    jailed = replace(service("submission/inet", {}), chroot=True)
    with pytest.raises(PlanError, match="cannot see /run/postmeter"):
        attaching.attach(mailer({}, [jailed]), config)


@pytest.mark.parametrize(("typed", "agrees"), [("y\n", True), ("Yes\n", True), ("\n", False), ("\x04", False)])
def test_only_who_says_yes_at_a_terminal_agrees(typed: str, agrees: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D, which ends a terminal's input, is no yes, and no crash."""
    keyboard, terminal = pty.openpty()
    os.write(keyboard, typed.encode())
    with open(terminal, encoding="ascii") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert _agreed() is agrees
    os.close(keyboard)
