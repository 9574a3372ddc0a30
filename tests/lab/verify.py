"""What other people's verifiers say about our signatures: OpenDKIM, Perl's Mail::DKIM, dkimpy (RFC 6376 section 6).

Each takes any number of messages at once, so that whole corpora cost a few process starts, and the keys as DNS would
give them: `{"sel._domainkey.example.com": "v=DKIM1; k=rsa; p=…"}`. Knows nothing of how postmeter signs.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dkim

from tests.lab.dns import NameServer

_BATCH = 400  # files a command line of opendkim; one argument may have 128 KiB (execve(2))
_BOUND = 300  # seconds; a verifier that hangs must not hang the tests

Records = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Signature:
    """One DKIM-Signature field as a verifier saw it. `result`: pass, fail, or another word of that verifier."""

    domain: str
    selector: str
    algorithm: str
    result: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one verifier said about one message; `trouble` tells why it could not say anything."""

    verifier: str
    signatures: tuple[Signature, ...] = ()
    trouble: str = ""

    @property
    def accepted(self) -> bool:
        """At least one signature passes, and none fails that this verifier can compute."""
        known = [each for each in self.signatures if not _beyond(self.verifier, each)]
        return not self.trouble and bool(known) and all(each.result == "pass" for each in known)

    def __str__(self) -> str:
        said = "; ".join(self._about(each) for each in self.signatures)
        return f"{self.verifier}: {self.trouble or said or 'no signature'}"

    def _about(self, signature: Signature) -> str:
        key = f"{signature.algorithm} {signature.selector}@{signature.domain}"
        if _beyond(self.verifier, signature):
            return f"{key}: not known to it"
        detail = f" ({signature.detail})" if signature.detail and signature.result != "pass" else ""
        return f"{key}: {signature.result}{detail}"


def _beyond(verifier: str, signature: Signature) -> bool:
    """Mail::DKIM learned Ed25519 after the version in Debian 12 and calls it an unsupported algorithm there."""
    return verifier == "Mail::DKIM" and "ed25519" in signature.algorithm and signature.result == "invalid"


def verify_all(messages: Sequence[bytes], records: Records) -> list[Verdict]:
    """Every verifier on every message."""
    return [
        verdict
        for verify in (verify_opendkim, verify_mail_dkim, verify_dkimpy)
        for verdict in verify(messages, records)
    ]


def missing() -> str:
    """Why the verifiers cannot run here; empty when they can."""
    if not shutil.which("opendkim", path="/usr/sbin:/usr/bin:/bin"):
        return "Debian's opendkim is not installed"
    perl = subprocess.run(["/usr/bin/perl", "-MMail::DKIM", "-e", "1"], capture_output=True, check=False)
    return "" if perl.returncode == 0 else "Debian's libmail-dkim-perl is not installed"


# --- OpenDKIM


def verify_opendkim(messages: Sequence[bytes], records: Records) -> list[Verdict]:
    """`opendkim -t` with the keys in a file. What a batch says nothing about is asked again alone."""
    with tempfile.TemporaryDirectory(prefix="postmeter-verify-") as name:
        folder = Path(name)
        files = _write(folder, messages)
        # MaximumHeaders: the default refuses messages with more than 64 KiB of header unseen (opendkim.conf(5)).
        (folder / "conf").write_text("Mode v\nTestPublicKeys keys\nMaximumHeaders 0\n")
        (folder / "keys").write_text("".join(f"{key} {value}\n" for key, value in records.items()))
        found: dict[str, Verdict] = {}
        for start in range(0, len(files), _BATCH):
            found.update(_opendkim(folder, files[start : start + _BATCH]))
        for file in files:
            if file not in found:
                found.update(_opendkim(folder, [file]))
        return [found.get(file) or Verdict("OpenDKIM", trouble="opendkim -t said nothing") for file in files]


def _opendkim(folder: Path, files: Sequence[str]) -> Iterator[tuple[str, Verdict]]:
    # -vv prints the Authentication-Results field it would add, above the line that names the file.
    command = ["/usr/sbin/opendkim", "-x", "conf", "-vv", "-t", ",".join(files)]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=_BOUND)
    said = done.stdout.decode("utf-8", "replace")
    field = ""
    for line in re.split(r"\n(?!\t)", said):
        if line.startswith("### INSHEADER"):
            field = line if "Authentication-Results" in line else field
        elif (named := re.match(r"opendkim: (m\d+): (.*)", line, re.DOTALL)) is not None:
            signatures = tuple(_authentication_results(field))
            trouble = "" if signatures or named[2].startswith("message not signed") else named[2].strip()
            yield named[1], Verdict("OpenDKIM", signatures, trouble)
            field = ""


def _authentication_results(field: str) -> Iterator[Signature]:
    """The dkim= results of an Authentication-Results field (RFC 8601 section 2.7.1)."""
    for result in re.findall(r"dkim=[^;]*", field):
        properties = dict(re.findall(r"header\.(\w)=([^\s;']+)", result))
        reason = re.search(r'reason="([^"]*)"', result)
        yield Signature(
            properties.get("d", ""),
            properties.get("s", ""),
            properties.get("a", ""),
            result.partition("=")[2].split()[0],
            reason[1] if reason else "",
        )


# --- Mail::DKIM


def verify_mail_dkim(messages: Sequence[bytes], records: Records) -> list[Verdict]:
    """One perl for all messages; it asks the lab's name server."""
    with tempfile.TemporaryDirectory(prefix="postmeter-verify-") as name, NameServer(records) as server:
        files = _write(Path(name), messages)
        done = subprocess.run(
            ["/usr/bin/perl", str(Path(__file__).with_name("mail_dkim.pl")), str(server.port)],
            cwd=name,
            input="".join(f"{file}\n" for file in files).encode(),
            capture_output=True,
            check=False,
            timeout=_BOUND,
        )
    said = {row["path"]: row for row in map(json.loads, done.stdout.splitlines())}
    trouble = done.stderr.decode("utf-8", "replace").strip() or "perl said nothing"
    return [_mail_dkim(said[file]) if file in said else Verdict("Mail::DKIM", trouble=trouble) for file in files]


def _mail_dkim(row: Mapping[str, object]) -> Verdict:
    signatures = row["signatures"]
    assert isinstance(signatures, list)
    return Verdict("Mail::DKIM", tuple(Signature(**each) for each in signatures), str(row["trouble"]).strip())


# --- dkimpy


def verify_dkimpy(messages: Sequence[bytes], records: Records) -> list[Verdict]:
    """dkimpy in this process, each signature on its own."""

    def lookup(name: bytes, timeout: int = 5) -> bytes | None:
        text = records.get(name.decode("ascii", "replace").rstrip(".").lower())
        return None if text is None else text.encode()

    return [_dkimpy(message, lookup) for message in messages]


def _dkimpy(message: bytes, lookup: object) -> Verdict:
    try:
        count = sum(name.lower() == b"dkim-signature" for name, _ in dkim.DKIM(message).headers)
        return Verdict("dkimpy", tuple(_dkimpy_one(message, nth, lookup) for nth in range(count)))
    except dkim.DKIMException as error:
        return Verdict("dkimpy", trouble=f"{type(error).__name__}: {error}")


def _dkimpy_one(message: bytes, nth: int, lookup: object) -> Signature:
    checker = dkim.DKIM(message)
    detail = ""
    try:
        passed = bool(checker.verify(idx=nth, dnsfunc=lookup))
    except dkim.DKIMException as error:
        passed, detail = False, f"{type(error).__name__}: {error}"
    fields = {key: value.decode("ascii", "replace") for key, value in checker.signature_fields.items()}
    algorithm = fields.get(b"a", "")
    return Signature(fields.get(b"d", ""), fields.get(b"s", ""), algorithm, "pass" if passed else "fail", detail)


def _write(folder: Path, messages: Sequence[bytes]) -> list[str]:
    """The messages as files with short names in `folder`."""
    names = [f"m{number}" for number in range(len(messages))]
    for name, message in zip(names, messages, strict=True):
        (folder / name).write_bytes(message)
    return names
