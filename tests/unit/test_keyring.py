"""Which keys sign for whom: loaded when first needed, read again when they change, kept while what is new is bad."""

from __future__ import annotations

import logging
import os
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postmeter.config.schema import Dkim, KeyEntry, SignEntry
from postmeter.submission import kept, keydir, keyring
from postmeter.submission.keydir import KeyState
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.keyring import Keyring, load
from tests.lab.keys import any_rsa_key

FORM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
RSA = any_rsa_key().private_bytes(*FORM)


def ed() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(*FORM)


FIRST, SECOND = ed(), ed()
LATER = 4e9  # so far from the files' own times that a stamp is believed


class Clock:
    def __init__(self, now: float = LATER) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_(self) -> None:
        self.now += 1.5


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    return path


def auto(place: Path, *domains: str, **settings: object) -> Dkim:
    entries = tuple(SignEntry(domain=domain, keys="auto") for domain in domains)
    return Dkim(sign=entries, keys_dir=place, **settings)  # type: ignore[arg-type]


def selectors(ring: Keyring, domain: str = "example.com") -> list[str]:
    return [key.selector for key in ring.for_domain(domain)]


def public(ring: Keyring, domain: str = "example.com") -> list[str]:
    return [key.record() for key in ring.for_domain(domain)]


@pytest.fixture(autouse=True)
def unsaid() -> None:
    """Once a minute is for a process; each test is one of its own."""
    kept.once._said.clear()


# --- keys: auto


def test_all_active_keys_of_the_directory_sign_rsa_first(tmp_path: Path) -> None:
    write(tmp_path / "example.com/a.pem", FIRST)
    write(tmp_path / "example.com/b.pem", RSA)
    write(tmp_path / "example.com/c.pem", SECOND)
    keydir.write_state(tmp_path / "example.com", {"c": KeyState("pending", 0)})
    ring = load(auto(tmp_path, "example.com"))
    assert [(key.domain, key.selector) for key in ring.for_domain("Example.com")] == [
        ("example.com", "b"),
        ("example.com", "a"),
    ]


def test_the_directory_of_an_international_domain_is_named_as_dns_has_it(tmp_path: Path) -> None:
    write(tmp_path / "xn--bcher-kva.example/a.pem", FIRST)
    ring = load(auto(tmp_path, "bücher.example"))
    assert [key.domain for key in ring.for_domain("BÜCHER.example")] == ["xn--bcher-kva.example"]


def test_a_rotation_is_seen_within_a_second_and_never_leaves_a_domain_without_a_key(tmp_path: Path) -> None:
    place, clock = tmp_path / "example.com", Clock()
    write(place / "old.pem", FIRST)
    ring = Keyring(auto(tmp_path, "example.com"), clock=clock)
    seen = [selectors(ring)]
    for states, new, gone in [
        ({"new": "pending", "old": "active"}, "new", ""),
        ({"new": "active", "old": "retired"}, "", ""),
        ({"new": "active", "old": "retired"}, "", "old"),
        ({"new": "active"}, "", ""),
    ]:
        keydir.write_state(place, {name: KeyState(state, 0) for name, state in states.items()})  # type: ignore[arg-type]
        if new:
            write(place / f"{new}.pem", SECOND)
        if gone:
            (place / f"{gone}.pem").unlink()
        clock.pass_()
        seen.append(selectors(ring))
    assert seen == [["old"], ["old"], ["new"], ["new"], ["new"]]


def test_a_new_key_is_taken_without_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    write(tmp_path / "example.com/a.pem", FIRST)
    ring = Keyring(auto(tmp_path, "example.com"), clock=clock)
    assert selectors(ring) == ["a"]
    write(tmp_path / "example.com/b.pem", SECOND)
    assert selectors(ring) == ["a"], "looked at once a second"
    clock.pass_()
    assert selectors(ring) == ["a", "b"]


@pytest.mark.parametrize("data", [RSA[:500], b"", b"nonsense"])
def test_a_half_written_key_in_the_directory_leaves_the_others_signing(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    write(tmp_path / "example.com/a.pem", FIRST)
    ring = Keyring(auto(tmp_path, "example.com"), clock=clock)
    assert selectors(ring) == ["a"]
    bad = write(tmp_path / "example.com/b.pem", data)
    for _ in range(3):
        clock.pass_()
        assert selectors(ring) == ["a"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "said once a minute"
    assert str(bad) in caplog.text
    write(bad, RSA)
    clock.pass_()
    assert selectors(ring) == ["b", "a"]


def test_what_is_wrong_with_a_directory_is_told_at_its_entry(tmp_path: Path) -> None:
    write(tmp_path / "good.example/a.pem", FIRST)
    write(tmp_path / "good.example/a.txt", b"v=DKIM1")
    write(tmp_path / "open.example/a.pem", FIRST, mode=0o644)
    dkim = auto(tmp_path, "absent.example", "good.example", "open.example")
    found = [(problem.key, problem.path.name, problem.fatal) for problem in Keyring(dkim).examine()]
    assert found == [
        ("dkim.sign[0].keys", "absent.example", True),
        ("dkim.sign[1].keys", "a.txt", False),
        ("dkim.sign[2].keys", "a.pem", True),
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="root's files are safe with root alone")
def test_a_directory_in_which_others_could_put_a_key_is_refused_at_first_use_too(tmp_path: Path) -> None:
    file = write(tmp_path / "example.com/a.pem", FIRST)
    tmp_path.chmod(0o755)
    file.parent.chmod(0o777)
    with pytest.raises(KeyProblem, match=f"mode 0777.*chmod o-w {file.parent}"):
        Keyring(auto(tmp_path, "example.com")).for_domain("example.com")


# --- listed files


def listed(*files: Path, domain: str = "example.com") -> SignEntry:
    return SignEntry(domain=domain, keys=tuple(KeyEntry(selector=file.stem, file=file) for file in files))


def test_a_listed_key_that_changed_is_read_again(tmp_path: Path) -> None:
    clock, file = Clock(), write(tmp_path / "a.pem", FIRST)
    ring = Keyring(Dkim(sign=(listed(file),)), clock=clock)
    before = public(ring)
    write(tmp_path / "a.new", SECOND).rename(file)
    assert public(ring) == before, "looked at once a second"
    clock.pass_()
    assert public(ring) != before


@pytest.mark.parametrize("harm", ["half", "gone", "open", "directory"])
def test_a_listed_key_that_went_bad_signs_on_and_is_told(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, file = Clock(), write(tmp_path / "a.pem", RSA)
    ring = Keyring(Dkim(sign=(listed(file),)), clock=clock)
    before = public(ring)
    if harm == "half":
        write(file, RSA[:900])
    elif harm == "open":
        file.chmod(0o644)
    else:
        file.unlink()
        if harm == "directory":
            file.mkdir()
    for _ in range(3):
        clock.pass_()
        assert public(ring) == before
    assert len(caplog.records) == 1
    assert str(file) in caplog.text
    assert "what was there before is used" in caplog.text


def test_two_changes_within_one_tick_of_the_clock_are_both_seen(tmp_path: Path) -> None:
    """The second one leaves size and times as they are: a stamp that young is not believed."""
    file = write(tmp_path / "a.pem", FIRST)
    born = file.stat().st_ctime
    clock = Clock(born + 0.001)
    ring = Keyring(Dkim(sign=(listed(file),)), clock=clock)
    before = public(ring)
    real = kept._stamp
    frozen = real(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "_stamp", lambda path: frozen)
        write(file, SECOND)
        clock.pass_()
        assert public(ring) != before


def test_what_fails_at_first_use_fails_alone_and_heals(tmp_path: Path) -> None:
    """A domain beyond those that are looked at when we start."""
    bad, good = tmp_path / "bad.pem", write(tmp_path / "good.pem", FIRST)
    ring = Keyring(Dkim(sign=(listed(bad, domain="bad.example"), listed(good, domain="good.example"))))
    for _ in range(2):
        with pytest.raises(KeyProblem, match="no such file"):
            ring.for_domain("bad.example")
        assert selectors(ring, "good.example") == ["good"]
    write(bad, SECOND)
    assert selectors(ring, "bad.example") == ["bad"]


def test_a_damaged_key_is_found_at_first_use_too(tmp_path: Path) -> None:
    at = 150
    pem = any_rsa_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    file = write(tmp_path / "a.pem", pem[:at] + (b"A" if pem[at : at + 1] != b"A" else b"B") + pem[at + 1 :])
    with pytest.raises(KeyProblem, match=r"is damaged|can be read"):
        Keyring(Dkim(sign=(listed(file),))).for_domain("example.com")


def test_the_start_looks_at_so_many_keys_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "AT_START", 50)
    good = write(tmp_path / "good.pem", FIRST)
    first = [listed(good, domain=f"d{nth}.example") for nth in range(50)]
    late = listed(tmp_path / "absent.pem", domain="late.example")
    ring = load(Dkim(sign=(*first, late)))
    assert ring.holds("late.example")
    with pytest.raises(KeyProblem, match="no such file"):
        load(Dkim(sign=(*first[1:], late)))
    with pytest.raises(KeyProblem, match="no such file"):
        ring.for_domain("late.example")


def test_keys_are_kept_in_bounded_number_the_least_used_goes(tmp_path: Path) -> None:
    file = write(tmp_path / "a.pem", FIRST)
    ring = Keyring(Dkim(sign=tuple(listed(file, domain=f"d{nth}.example") for nth in range(9)), key_cache=3))
    ring.for_domain("d0.example")
    kept_one = ring.for_domain("d0.example")[0]
    for nth in range(1, 9):
        ring.for_domain(f"d{nth}.example")
        assert ring.for_domain("d0.example")[0] is kept_one
    made = ring._kept._made
    assert list(made) == ["d7.example", "d8.example", "d0.example"]


def test_threads_may_share_it_while_files_change(tmp_path: Path) -> None:
    """A selector is never used again: a name that goes and comes back at once could be read as two that never met."""
    place = tmp_path / "example.com"
    names = [f"k{nth}" for nth in range(11)]
    write(place / "k0.pem", FIRST)
    now = iter(range(10**9, 2 * 10**9))
    ring = Keyring(auto(tmp_path, "example.com"), clock=lambda: float(next(now)))
    odd: list[object] = []

    def ask() -> None:
        for _ in range(60):
            try:
                if len(found := selectors(ring)) != 1:
                    odd.append(found)
            except KeyProblem as problem:
                odd.append(problem)

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for old, new in pairwise(names):
        known = {new: KeyState("pending", 0), old: KeyState("active", 0)}
        keydir.write_state(place, known)
        write(place / f".{new}", FIRST).rename(place / f"{new}.pem")
        keydir.write_state(place, {new: KeyState("active", 0), old: KeyState("retired", 0)})
        (place / f"{old}.pem").unlink()
        keydir.write_state(place, {new: KeyState("active", 0)})
    for thread in threads:
        thread.join()
    assert odd == []


def test_a_directory_that_is_renamed_meanwhile_leaves_the_keys_signing(tmp_path: Path) -> None:
    """As whoever replaces all keys at once does it: for a moment the directory is not there."""
    place, aside = tmp_path / "keys" / "example.com", tmp_path / "aside"
    place.parent.mkdir(mode=0o711)
    write(place / "a.pem", FIRST)
    place.chmod(0o711)
    now = iter(range(10**9, 2 * 10**9))
    ring = Keyring(auto(place.parent, "example.com"), clock=lambda: float(next(now)))
    assert selectors(ring) == ["a"]
    over = Event()

    def swap() -> None:
        while not over.is_set():
            place.parent.rename(aside)
            aside.rename(place.parent)

    swapping = Thread(target=swap)
    swapping.start()
    try:
        assert {tuple(selectors(ring)) for _ in range(1000)} == {("a",)}
    finally:
        over.set()
        swapping.join()


# --- the default


def test_the_default_signs_for_whom_nothing_covers_and_makes_nobody_ours(tmp_path: Path) -> None:
    file = write(tmp_path / "a.pem", FIRST)
    entries = (listed(file), listed(file, domain="example.org"))
    ring = Keyring(Dkim(sign=entries, default_domain="example.org"))
    asked = ["example.com", "sub.example.com", "other.example", ""]
    assert [[key.domain for key in ring.for_domain(domain)] for domain in asked] == [
        ["example.com"],
        ["example.org"],
        ["example.org"],
        [],
    ]
    assert [ring.holds(domain) for domain in asked] == [True, False, False, False]
    assert [ring.signs(domain) for domain in asked] == [True, True, True, False]
