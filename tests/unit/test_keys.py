"""Key files of every kind load once and sign; every faulty one is refused with what mends it."""

from __future__ import annotations

import base64
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)

from postmeter.config.schema import Dkim, KeyEntry, SignEntry
from postmeter.mail.address import ascii_domain
from postmeter.submission import keyring, keys
from postmeter.submission.keyfiles import Guard, KeyProblem
from postmeter.submission.keyring import Keyring
from tests.lab.child import code_of
from tests.lab.keys import any_rsa_key

RSA = any_rsa_key()
ED25519 = ed25519.Ed25519PrivateKey.generate()
PLAIN = NoEncryption()


def pem(
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption = PLAIN,
) -> bytes:
    return key.private_bytes(Encoding.PEM, form, encryption)


SEED = base64.b64encode(ED25519.private_bytes(Encoding.Raw, PrivateFormat.Raw, PLAIN)) + b"\n"
ENCRYPTED = BestAvailableEncryption(b"secret")
RSA_PEM = pem(RSA)


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def configured(*files: Path, domain: str = "example.com", subdomains: bool = False, key_cache: int = 100) -> Dkim:
    entries = tuple(KeyEntry(selector=f"s{nth}", file=file) for nth, file in enumerate(files))
    return Dkim(sign=(SignEntry(domain=domain, keys=entries, subdomains=subdomains),), key_cache=key_cache)


def check(dkim: Dkim) -> list[KeyProblem]:
    return list(Keyring(dkim).examine())


@pytest.mark.parametrize(
    ("data", "algorithm"),
    [
        (pem(RSA, PrivateFormat.TraditionalOpenSSL), "rsa-sha256"),
        (RSA_PEM, "rsa-sha256"),
        (RSA_PEM.replace(b"\n", b"\r\n"), "rsa-sha256"),
        (b"# exported from elsewhere\n" + RSA_PEM, "rsa-sha256"),
        (pem(ED25519), "ed25519-sha256"),
        (SEED, "ed25519-sha256"),
    ],
    ids=["PKCS#1", "PKCS#8", "CRLF", "with a comment", "Ed25519 PEM", "raw seed"],
)
def test_each_kind_of_key_file_signs_what_its_record_verifies(tmp_path: Path, data: bytes, algorithm: str) -> None:
    [key] = keyring.load(configured(write(tmp_path / "key", data))).for_domain("example.com")
    assert key.algorithm == algorithm
    public = base64.b64decode(key.record().rpartition("p=")[2])
    if algorithm == "rsa-sha256":
        verifier = load_der_public_key(public)
        assert isinstance(verifier, rsa.RSAPublicKey)
        verifier.verify(key.sign(b"data"), b"data", PKCS1v15(), SHA256())
    else:
        assert public == ED25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def damaged(data: bytes) -> bytes:
    """Another digit of the modulus: a key that parses, and signs what its public half does not accept."""
    at = 150
    return data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"not a key\n", "is no private key"),
        (base64.b64encode(b"short"), "is no private key"),
        (RSA_PEM[:700], "ends in the middle"),
        (RSA_PEM[:700] + b"\n-----END PRIVATE KEY-----\n", "holds no key that can be read"),
        (damaged(pem(RSA, PrivateFormat.TraditionalOpenSSL)), "is damaged|can be read"),  # version 38 validates itself
        (pem(RSA, PrivateFormat.PKCS8, ENCRYPTED), "protected by a passphrase"),
        (pem(RSA, PrivateFormat.TraditionalOpenSSL, ENCRYPTED), "protected by a passphrase"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "wrong type of key"),
        (pem(ED25519, PrivateFormat.OpenSSH), "OpenSSH's form"),
        (RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "holds no private key"),
    ],
)
def test_a_file_that_cannot_sign_is_refused_by_name(tmp_path: Path, data: bytes, what: str) -> None:
    file = write(tmp_path / "key", data)
    with pytest.raises(KeyProblem) as caught:
        keyring.load(configured(file))
    assert (caught.value.path, caught.value.fatal) == (file, True)
    assert re.search(what, caught.value.what)
    assert caught.value.fix


def test_short_rsa_keys_are_refused_and_middling_ones_warned_about(tmp_path: Path) -> None:
    """RFC 8301 section 3.2."""
    middling = write(tmp_path / "1024", pem(rsa.generate_private_key(65537, 1024)))
    [warning] = check(configured(middling))
    assert "1024 bits" in warning.what
    assert not warning.fatal
    assert keyring.load(configured(middling)).holds("example.com")
    # cryptography makes no shorter ones any more; `openssl genrsa -traditional 512` did
    short = write(tmp_path / "512", SHORT_KEY)
    with pytest.raises(KeyProblem, match=r"512 bits|holds no key"):
        keyring.load(configured(short))


SHORT_KEY = b"""-----BEGIN RSA PRIVATE KEY-----
MIIBPAIBAAJBAMySCWJi+wgZRKEhPWW5H6XnRPX1yv2axM3JU2gAc/ATikFvzjhG
gKTHYXhw70CqTgnlGgNyKbYxr+4n9uMk26ECAwEAAQJBAI0NVLMmFHjtE0kWpkLx
dkTqRb5iD+j1QiWyX3Qie85YLzJIsu/8YM7kUzBoNOLqxdEXN795TJIaBWUaK4eC
owECIQDlialZY/tCIfmkMqTkiGvXE3LSQAWqL6zTtBj1djkBeQIhAOQnhEHLB403
Yb+aQfBqVnsn3Sq+AH8B9fatUHgi5glpAiEApKNT68ER9EJoTATjTuQm7ZKOlg3D
wmkFvqd8C3vrsYkCIQDb/LpKkhAy+p52l69St8WxNAvNxaxGykY2VoCLheLWWQIg
fQxpVB8/DNFUPbLLnjx5DWQPl2sprFaYu0Yzc8due5A=
-----END RSA PRIVATE KEY-----
"""


def test_missing_files_and_directories_are_named(tmp_path: Path) -> None:
    found = check(configured(tmp_path / "absent", tmp_path))
    assert [problem.what for problem in found] == ["no such file", "is a directory"]


def test_all_faults_are_found_at_once(tmp_path: Path) -> None:
    good, bad, open_ = (
        write(tmp_path / "good", RSA_PEM),
        write(tmp_path / "bad", b"x"),
        write(tmp_path / "open", SEED, mode=0o644),
    )
    assert [problem.path for problem in check(configured(good, bad, open_))] == [bad, open_]


def test_rsa_signs_first_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    ring = keyring.load(configured(write(tmp_path / "e", SEED), write(tmp_path / "r", RSA_PEM)))
    assert [key.selector for key in ring.for_domain("example.com")] == ["s1", "s0"]


@pytest.mark.parametrize(
    ("configured_as", "asked", "found"),
    [
        ("example.com", "EXAMPLE.com.", True),
        ("example.com", "sub.example.com", False),
        ("example.com", "badexample.com", False),
        ("example.com", "com", False),
        ("example.com", "", False),
        ("example.com", "[192.0.2.1]", False),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "BÜCHER.example", True),
        ("fass.example", "faß.example", False),  # IDNA2003 would say otherwise, and sign for another's domain
        ("xn--fa-hia.example", "faß.example", True),
        ("example.com", "exam\udcffple.com", False),
        ("example.com", "example。com", False),
    ],
)
def test_a_domain_is_found_however_it_is_spelt(tmp_path: Path, configured_as: str, asked: str, found: bool) -> None:
    ring = keyring.load(configured(write(tmp_path / "key", SEED), domain=configured_as))
    assert ring.holds(asked) is found
    assert [key.domain for key in ring.for_domain(asked)] == [ascii_domain(configured_as)] * found


def test_subdomains_are_signed_for_by_the_nearest_domain_that_says_so(tmp_path: Path) -> None:
    entries = tuple(
        SignEntry(domain=domain, subdomains=below, keys=(KeyEntry(selector="s", file=write(tmp_path / domain, SEED)),))
        for domain, below in [("example.com", True), ("a.example.com", False), ("b.example.com", True)]
    )
    ring = keyring.load(Dkim(sign=entries))
    asked = ["example.com", "x.example.com", "a.example.com", "x.a.example.com", "x.y.b.example.com", "x.example.org"]
    signed = [[key.domain for key in ring.for_domain(domain)] for domain in asked]
    expected = ["example.com", "example.com", "a.example.com", "example.com", "b.example.com", None]
    assert signed == [[domain] if domain else [] for domain in expected]


def test_a_key_is_read_once_and_again_only_when_the_cache_dropped_it(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", SEED), write(tmp_path / "2", RSA_PEM)
    sign = (*configured(first).sign, *configured(second, domain="example.org").sign)
    kept, bounded = keyring.load(Dkim(sign=sign)), keyring.load(Dkim(sign=sign, key_cache=1))
    first.unlink()
    second.unlink()
    assert len(kept.for_domain("example.com")) == len(kept.for_domain("example.org")) == 1
    assert bounded.for_domain("example.org")
    with pytest.raises(KeyProblem, match="no such file"):
        bounded.for_domain("example.com")


def test_a_keyring_serves_threads_of_a_forked_child(tmp_path: Path) -> None:
    ring = keyring.load(configured(write(tmp_path / "e", SEED), write(tmp_path / "r", RSA_PEM), key_cache=1))

    def sign() -> int:
        done: list[int] = []
        threads = [threading.Thread(target=lambda: done.append(len(sign_all(ring)))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return done.count(2)

    assert code_of(sign) == 8


def sign_all(ring: Keyring) -> list[bytes]:
    return [key.sign(b"data") for key in ring.for_domain("example.com")]


def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    file = write(tmp_path / "key", SEED, mode=0o604)
    with pytest.raises(KeyProblem, match=r"others can read or write it \(mode 0604\); chmod o-rwx "):
        Guard().check(file)
    file.chmod(0o600)
    Guard().check(file)


@pytest.mark.parametrize(("path", "told"), [("/", "is a directory; name the key"), ("/dev/null", "is no file; name a")])
def test_nobody_is_told_to_close_what_is_no_file(path: str, told: str) -> None:
    """chmod o-rwx of / or /dev/null would end much."""
    with pytest.raises(KeyProblem, match=told):
        Guard().check(Path(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, which only root may")
def test_a_directory_in_which_others_could_swap_keys_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    tmp_path.chmod(0o755)
    file = write(folder / "key", SEED)
    folder.chmod(0o777)
    with pytest.raises(KeyProblem) as caught:
        Guard().check(file)
    assert (caught.value.path, caught.value.fix) == (folder, f"chmod o-w {folder}")
    folder.chmod(0o1777)  # sticky: nobody can replace what is not his
    Guard().check(file)
    folder.chmod(0o700)
    tmp_path.chmod(0o777)  # nobody gets through a closed directory, whatever is above it
    Guard().check(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, which only root may")
def test_besides_root_one_account_may_own_or_share_a_key(tmp_path: Path) -> None:
    """daemon (1) and its group, bin (2): accounts of every Debian system."""
    tmp_path.chmod(0o755)
    file = write(tmp_path / "key", SEED, mode=0o640)
    os.chown(file, 0, 1)
    Guard(1).check(file)
    Guard(0).check(file)
    with pytest.raises(KeyProblem, match="group daemon can read or write it"):
        Guard(2).check(file)
    os.chown(file, 1, 2)
    with pytest.raises(KeyProblem, match="belongs to daemon; chown bin"):
        Guard(2).check(file)
    with pytest.raises(KeyProblem, match="group bin can read or write it"):
        Guard(0).check(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root may")
def test_what_keeps_us_from_a_key_is_named_with_its_mode_and_the_command() -> None:
    """The directory where it is a directory: to change the key's owner would mend nothing."""
    with tempfile.TemporaryDirectory() as name:
        top, folder = Path(name), Path(name) / "keys"
        folder.mkdir(mode=0o750)
        top.chmod(0o755)
        file = write(folder / "key", SEED)
        with as_daemon(), pytest.raises(KeyProblem) as caught:
            keys.load(file)
        assert (caught.value.path, caught.value.fix) == (folder, f"chmod o+x {folder}")
        assert str(caught.value).startswith(f"{folder}: daemon may not enter it (mode 0750), and so not read {file}; ")
        folder.chmod(0o751)
        with as_daemon(), pytest.raises(KeyProblem) as caught:
            keys.load(file)
        told = f"{file}: daemon may not read it (mode 0600); chown daemon {file} && chmod u+r {file}"
        assert str(caught.value) == told


@contextmanager
def as_daemon() -> Iterator[None]:
    os.setegid(1)
    os.seteuid(1)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
