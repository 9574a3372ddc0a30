"""Durations, sizes, limits and names mean what the documentation says, and are written back as they are read."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config import amounts, stores, values
from postmeter.config.problem import MistakeError

MILLISECONDS = {"ms": 1, "s": 1000, "m": 60 * 1000, "h": 3600 * 1000, "d": 24 * 3600 * 1000}
BYTES = {"": 1, "k": 1024, "M": 1024**2, "G": 1024**3}
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 24 * 3600, "month": 30 * 24 * 3600}


@given(st.integers(0, 36500 * 24 * 3600 * 1000))
def test_a_duration_is_read_back_as_it_is_written(milliseconds: int) -> None:
    assert round(amounts.duration(amounts.duration_text(milliseconds / 1000)) * 1000) == milliseconds


@given(st.integers(0, 2**53))
def test_a_size_is_read_back_as_it_is_written(count: int) -> None:
    assert amounts.size(amounts.size_text(count)) == count


@given(st.decimals(0, 90, places=2), st.sampled_from(sorted(MILLISECONDS)))
def test_a_duration_is_number_times_unit(number: Decimal, unit: str) -> None:
    assert amounts.duration(f"{number:f}{unit}") == float(number * MILLISECONDS[unit] / 1000)


@given(st.integers(0, 10**6), st.sampled_from(sorted(BYTES)))
def test_a_size_is_number_times_unit(number: int, unit: str) -> None:
    assert amounts.size(f"{number}{unit}") == number * BYTES[unit]


@given(
    st.integers(1, 10**9),
    st.sampled_from(["messages", "recipients", "bytes"]),
    st.sampled_from(sorted(SECONDS)),
    st.booleans(),
    st.sampled_from(["/", " / ", "/ "]),
)
def test_a_limit_is_count_unit_and_window(count: int, unit: str, window: str, singular: bool, slash: str) -> None:
    text = f"{count} {unit.removesuffix('s') if singular else unit}{slash}{window}"
    assert amounts.limit(text) == amounts.Limit(count, unit, SECONDS[window], text)


def test_limits_on_a_command_line_have_commas_between_them() -> None:
    assert amounts.limits("500 recipients/day,1G/day") == (amounts.limit("500 recipients/day"), amounts.limit("1G/day"))
    assert amounts.limits(" unlimited ") == ()


@pytest.mark.parametrize("text", ["", "5 messages/day,", "unlimited, 5 messages/day", "1G/day, 5 bytes/day"])
def test_a_list_with_what_is_no_limit_or_one_twice_is_refused(text: str) -> None:
    with pytest.raises(MistakeError):
        amounts.limits(text)


@given(st.integers(1, 10**6), st.sampled_from("kMG"), st.sampled_from(sorted(SECONDS)))
def test_a_bare_size_limits_bytes(count: int, unit: str, window: str) -> None:
    limit = amounts.limit(f"{count}{unit}/{window}")
    assert (limit.count, limit.unit, limit.window) == (count * BYTES[unit], "bytes", SECONDS[window])


@pytest.mark.parametrize("text", ["10M/message", "50 recipients/message", "1000 bytes/message"])
def test_a_limit_for_each_message_has_no_window(text: str) -> None:
    assert amounts.limit(text).window == 0


@pytest.mark.parametrize(
    "text", ["500/day", "5/message", "1000 messages", "messages/day", "1 messages/message", "0 messages/day"]
)
def test_what_leaves_a_question_is_no_limit(text: str) -> None:
    with pytest.raises(MistakeError):
        amounts.limit(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BU\u0308CHER.example.", "xn--bcher-kva.example"),
        ("_dmarc.example", "_dmarc.example"),
        ("localhost", "localhost"),
    ],
)
def test_a_domain_is_what_dns_knows(text: str, name: str) -> None:
    assert values.domain(text) == name


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "ä..b", "-a.example", "a_.-", "a b", "é" * 200, "a" * 64, "a." * 200, "x@y", "\x00"]
)
def test_what_dns_could_not_hold_is_no_domain(text: str) -> None:
    with pytest.raises(MistakeError):
        values.domain(text)


@pytest.mark.parametrize("text", ["faß.example", "ｂücher.example", "bücher。example"])
def test_a_domain_that_programs_read_in_two_ways_is_asked_about(text: str) -> None:
    """IDNA2003 takes ß for ss: the key, and the right to use it, would be another domain's."""
    with pytest.raises(MistakeError) as caught:
        values.domain(text)
    assert " or " in caught.value.fix


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.0.2.1", False), ("mail.example.com", False)],
)  # fmt: skip
def test_only_an_address_of_this_host_is_loopback(host: str, loopback: bool) -> None:
    assert values.InetAddress(host, 1).loopback is loopback


@given(st.ip_addresses() | st.just("mail.example.com"), st.integers(1, 65535))
def test_an_inet_address_is_read_back_as_it_is_written(host: object, port: int) -> None:
    text = str(host)
    if isinstance(host, ipaddress.IPv6Address) and host.scope_id is None:
        text = f"[{host}]"
    assert str(values.inet(f"{text}:{port}")) == f"{text}:{port}"


@given(st.sampled_from(["redis", "rediss"]), st.ip_addresses(v=4), st.integers(1, 65535), st.integers(0, 99))
def test_a_redis_has_host_port_and_database(scheme: str, host: object, port: int, database: int) -> None:
    found = stores.store(f"{scheme}://{host}:{port}/{database}")
    assert found == stores.RedisStore(
        places=(values.InetAddress(str(host), port),), database=database, tls=scheme == "rediss"
    )


@pytest.mark.parametrize(
    ("text", "places", "more"),
    [
        ("redis://[2001:db8::1]", ("[2001:db8::1]:6379",), {}),
        ("rediss://meter@redis.example.com", ("redis.example.com:6379",), {"tls": True, "user": "meter"}),
        ("redis+cluster://a,b:7001", ("a:6379", "b:7001"), {"cluster": True}),
        ("rediss+cluster://a", ("a:6379",), {"cluster": True, "tls": True}),
        ("redis+unix:///run/redis.sock", ("unix:/run/redis.sock",), {}),
        ("redis+unix://meter@/run/redis.sock?db=3", ("unix:/run/redis.sock",), {"user": "meter", "database": 3}),
    ],
)
def test_a_redis_is_reached_by_network_socket_or_as_a_cluster(
    text: str, places: tuple[str, ...], more: dict[str, object]
) -> None:
    found = stores.store(text)
    assert found is not None
    assert tuple(map(str, found.places)) == places
    told = {"user": found.user, "database": found.database, "tls": found.tls, "cluster": found.cluster}
    assert told == {"user": "", "database": 0, "tls": False, "cluster": False} | more


@given(st.text("abc0123456789:/@,. "), st.sampled_from(["redis", "rediss+cluster", "redis+unix", "mysql", "x"]))
def test_a_password_in_an_address_is_refused_and_not_repeated(rest: str, scheme: str) -> None:
    mistake = mistake_in(stores.store, f"{scheme}://user:SESAME@{rest}")
    assert mistake is not None
    assert "SESAME" not in mistake.what + mistake.fix


@pytest.mark.parametrize(
    "text",
    [
        "redis://h:6379?password=SESAME", "redis://h:6379/0?password=SESAME", "redis:SESAME@h/0", "redis:/u:SESAME@h",
        "redis+unix:///run/redis.sock?db=3&password=SESAME", "redis+unix:///run/redis.sock?password=SESAME",
        "u:SESAME@h",
    ],
)  # fmt: skip
def test_a_password_in_the_wrong_form_is_not_repeated_either(text: str) -> None:
    """As other programs write it, or with a slash too few."""
    mistake = mistake_in(stores.store, text)
    assert mistake is not None
    assert "SESAME" not in mistake.what + mistake.fix


@pytest.mark.parametrize(
    "text",
    [
        "https://user:SESAME@crm.example.com/", "https://SESAME@crm.example.com", "user:SESAME@crm.example.com",
        "https://user:SESAME@crm.example.com:port/", "//crm.example.com/SESAME", "https:/crm.example.com/SESAME",
    ],
)  # fmt: skip
def test_a_web_address_that_is_none_is_not_repeated(text: str) -> None:
    """Its path is a password often, as with hooks of chat programs."""
    mistake = mistake_in(values.url, text)
    assert mistake is not None
    assert "SESAME" not in mistake.what + mistake.fix


def test_a_tracking_host_with_a_password_is_not_repeated() -> None:
    mistake = mistake_in(values.origin, "https://user:SESAME@click.example.com")
    assert mistake is not None
    assert "SESAME" not in mistake.what + mistake.fix


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("8587", "write HOST:PORT, for example 127.0.0.1:8587"),
        (":8587", "write 127.0.0.1:8587, or 0.0.0.0:8587 for every address of this host"),
        ("*:8587", "write 127.0.0.1:8587, or 0.0.0.0:8587 for every address of this host"),
        ("mail.example.com", "write HOST:PORT, the port a number"),
    ],
)
def test_an_address_without_port_or_host_is_told_what_to_write(text: str, fix: str) -> None:
    """And never another daemon's port, which somebody would take over."""
    mistake = mistake_in(values.inet, text)
    assert mistake is not None
    assert mistake.fix == fix


@pytest.mark.parametrize("text", ["pm2026a._domainkey", "pm2026a._domainkey.example.com."])
def test_the_name_of_a_record_is_no_selector(text: str) -> None:
    mistake = mistake_in(values.selector, text)
    assert mistake is not None
    assert mistake.fix == "write pm2026a alone"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.9", "192.0.2.9/32"),
        ("::ffff:c000:200/120", "192.0.2.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0:0/96", "::ffff:0:0:0/96"),
        ("::/0", "::/0"),
    ],
)
def test_ipv4_within_ipv6_means_the_clients_that_postfix_names_by_ipv4(text: str, meant: str) -> None:
    assert values.network(text) == ipaddress.ip_network(meant)


def test_host_bits_of_ipv4_within_ipv6_are_told_by_ipv4() -> None:
    mistake = mistake_in(values.network, "::ffff:192.0.2.9/120")
    assert mistake is not None
    assert mistake.fix == "write 192.0.2.0/24, or the address alone"


PARSERS = [
    amounts.duration, amounts.size, amounts.limit, amounts.whole, amounts.decimal, amounts.percent, amounts.boolean,
    amounts.octal_mode, values.word, values.line, values.domain, values.selector, values.host_pattern, values.address,
    values.login_or_address, values.network, values.ip_address, values.path, values.inet, values.socket_address,
    values.origin, values.url, stores.store,
]  # fmt: skip


def mistake_in(parse: Callable[[str], object], text: str) -> MistakeError | None:
    """Any other exception fails the test that calls."""
    try:
        parse(text)
    except MistakeError as mistake:
        return mistake
    return None


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(text=st.text() | st.text("0123456789.:/[]@*-kMs% ", max_size=12))
def test_no_text_raises_anything_but_a_mistake_with_its_fix(parse: Callable[[str], object], text: str) -> None:
    mistake = mistake_in(parse, text)
    assert mistake is None or (mistake.what and mistake.fix)
