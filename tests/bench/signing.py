"""What a signature costs, as a multiple of the floor: one RSA-2048 operation and one SHA-256 pass over the body.

    PYTHONPATH=milter:. python tests/bench/signing.py [ROUNDS]

Prints microseconds a message, the least and the median of the rounds, the ratio of the medians, and where ours goes.
dkimpy stands beside it as what most programs in Python use.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections.abc import Callable

import dkim
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postmeter.mail import canonical, safe
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope, Field, Message
from postmeter.submission import headers, keys, signing
from tests.bench import messages

RSA = rsa.generate_private_key(65537, 2048)
PEM = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
RSA_KEY = keys.SigningKey("example.com", "rsa", RSA)
ED_KEY = keys.SigningKey("example.com", "ed", ed25519.Ed25519PrivateKey.generate())
FORM = signing.form_of("relaxed/relaxed")


def indented() -> messages.Mail:
    """The worst of what is common: HTML as people write it, 30 kB, a run of spaces or tabs on each line."""
    head = messages.newsletter().raw.partition(b"\r\n\r\n")[0]
    lines = (b"  " * (n % 12) + b"\t" * (n % 5) + b'<td class="c">some  text</td> \r\n' for n in range(640))
    return messages.Mail("indented HTML", head + b"\r\n\r\n" + b"".join(lines), 0)


def message(mail: messages.Mail) -> Message:
    fields = tuple(Field(name.encode(), value) for name, value in mail.fields())
    return Message(Envelope(b"news@example.com"), fields, mail.body(), queue_id="4ABC", time=0.0, reference=bytes(8))


def runs(mail: messages.Mail) -> dict[str, Callable[[], object]]:
    one = message(mail)
    draft = Draft(one)
    pkcs, sha256 = padding.PKCS1v15(), SHA256()

    def floor() -> None:
        hashlib.sha256(one.body).digest()
        RSA.sign(b"x" * 1000, pkcs, sha256)

    def ours(*ring: keys.SigningKey) -> Callable[[], object]:
        return lambda: signing.signatures(draft, ring, order=headers.BY_DEFAULT, form=FORM)

    return {
        "floor": floor,
        "ours, RSA": ours(RSA_KEY),
        "ours, RSA and Ed25519": ours(RSA_KEY, ED_KEY),
        "dkimpy, RSA": lambda: dkim.sign(mail.raw, b"s", b"example.com", PEM, canonicalize=(b"relaxed", b"relaxed")),
        "  body: canonical": lambda: sum(map(len, canonical.relaxed_body(one.body))),
        "  body: SHA-256": lambda: hashlib.sha256(one.body).digest(),
        "  header: choice": lambda: headers.BY_DEFAULT.choose(one.fields),
        "  all but keys": ours(),
        "make_safe": lambda: safe.recode(one.fields, one.body),
    }


def measure(rounds: int, jobs: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """In turn, so that what disturbs one disturbs all."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for nth in range(rounds):
        for name, job in jobs.items():
            if name.startswith("dkimpy") and nth % 20:
                continue
            start = time.perf_counter()
            job()
            times[name].append((time.perf_counter() - start) * 1e6)
    return times


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for mail in (messages.plain(), messages.newsletter(), indented()):
        print(f"{mail.name}, body of {len(mail.body())} octets, {rounds} rounds     least   median    ratio")
        times = measure(rounds, runs(mail))
        floor = statistics.median(times["floor"])
        for name, taken in times.items():
            median = statistics.median(taken)
            print(f"  {name:<42}{min(taken):9.1f}{median:9.1f}{median / floor:9.2f}")


if __name__ == "__main__":
    main()
