"""Lists of suppressed addresses as CSV (RFC 4180): ours, and those of other services, known by their header rows.

    ours        address,scope,reason,since,until,count,provider,evidence
    Mailgun     bounces address,code,error,created_at; unsubscribes address,tags,created_at;
                complaints address,created_at
    SendGrid    bounces and blocks status,reason,email,created; invalid reason,email,created; spam ip,email,created;
                unsubscribes email,created
    Postmark    EmailAddress,SuppressionReason,Origin,CreatedAt
    Amazon SES  EmailAddress,Reason,LastUpdateTime; or no header, and lines ADDRESS,BOUNCE

documentation.mailgun.com (Import list of bounces, of unsubscribes, of complaints), twilio.com/docs/sendgrid (bounces,
blocks, invalid emails, spam reports), postmarkapp.com/developer/api/suppressions-api, docs.aws.amazon.com/ses
(SuppressedDestination, CreateImportJob). A file may come from anybody: a line that makes no sense is told and left out.
A spreadsheet takes a field that begins with = + - or @ for a formula, and remote servers write our evidence: such a
field gets an apostrophe, which goes again when we read it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TextIO

from postmeter.mail.scope import as_mail_has_it
from postmeter.store.suppression import BOUNCED, COMPLAINED, MANUAL, REASONS, UNSUBSCRIBED, Suppression, line

OURS = ("address", "scope", "reason", "since", "until", "count", "provider", "evidence")

_LONGEST_FIELD = 65_536  # characters; an open quote would else take the rest of the file for one field
_LAST = 253_402_300_799.0  # the year 9999
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ADDRESS = re.compile(r"[^\s@<>\x00-\x1f\x7f]{1,200}@[^\s@<>,;\"\x00-\x1f\x7f]{1,255}|hash:[0-9a-f]{32}")
_TEMPORARY = re.compile(r"4\d\d\b|4\.")
_SCOPE = re.compile(r"everywhere|domain:[^\s/@]{1,255}|from:\S{1,320}|list:[^\s/]{1,255}/\S{1,255}")
_WORDS = {
    "hardbounce": BOUNCED,
    "bounce": BOUNCED,
    "spamcomplaint": COMPLAINED,
    "complaint": COMPLAINED,
    "manualsuppression": MANUAL,
    "unsubscribe": UNSUBSCRIBED,
}


class UnreadableError(Exception):
    """The file as a whole; its text says what to do."""


@dataclass(frozen=True, slots=True)
class Form:
    """Whose a file is. `reason` is empty where each line, or else the administrator, says it."""

    whose: str
    columns: Mapping[str, int]
    reason: str = ""

    def of(self, row: list[str], *names: str) -> str:
        """The first of these columns that there is and that holds something."""
        found = (self.columns.get(name, -1) for name in names)
        return next((plain(row[at]).strip() for at in found if 0 <= at < len(row) and row[at].strip()), "")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a line does not say it. `until` tells the end by the reason; None is for ever."""

    scope: str
    reason: str
    now: float
    until: Callable[[str], float | None]


# Columns that must be there, in lower case; the first form that fits is meant, so the more telling ones come first.
_FORMS: tuple[tuple[str, frozenset[str], str], ...] = (
    ("Postmark", frozenset({"emailaddress", "suppressionreason"}), ""),
    ("Amazon SES", frozenset({"emailaddress", "reason"}), ""),
    ("SendGrid bounces", frozenset({"status", "reason", "email"}), BOUNCED),
    ("SendGrid spam reports", frozenset({"ip", "email"}), COMPLAINED),
    ("SendGrid invalid addresses", frozenset({"reason", "email"}), BOUNCED),
    ("Mailgun bounces", frozenset({"address", "code", "error"}), BOUNCED),
    ("Mailgun unsubscribes", frozenset({"address", "tags"}), UNSUBSCRIBED),
    ("postmeter", frozenset({"address", "scope", "reason"}), ""),
    ("addresses", frozenset({"address"}), ""),
    ("addresses", frozenset({"email"}), ""),
    ("addresses", frozenset({"emailaddress"}), ""),
)


def read(file: TextIO, defaults: Defaults, complain: Callable[[int, str], None]) -> Iterator[Suppression]:
    """What the file asks for, line by line; `complain` is told the number of a line and why it is left out."""
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(file)
    form: Form | None = None
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            complain(reader.line_num, str(error))
            continue
        if not any(field.strip() for field in row):
            continue
        if form is None:
            form, is_header = _form(row, defaults)
            if is_header:
                continue
        made = _suppression(form, row, defaults)
        if isinstance(made, str):
            complain(reader.line_num, made)
        else:
            yield made


def write(file: TextIO, suppressions: Iterable[Suppression]) -> None:
    """Times are UTC, to the microsecond, so that nothing changes on the way."""
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(OURS)
    for one in suppressions:
        until = "" if one.until is None else _iso(one.until)
        row = (one.address, one.scope, one.reason, _iso(one.since), until, str(one.count), one.provider, one.evidence)
        writer.writerow([safe(field) for field in row])


def safe(field: str) -> str:
    """No formula for a spreadsheet."""
    return f"'{field}" if _FORMULA.match(field) else field


def plain(field: str) -> str:
    """What `safe` made safe."""
    return field[1:] if field.startswith("'") and _FORMULA.match(field) else field


def scope_problem(scope: str) -> str:
    """Why that is no scope; empty when it is one."""
    if _SCOPE.fullmatch(scope):
        return ""
    forms = "everywhere, domain:example.com, from:news@example.com or list:FROM-DOMAIN/ID"
    return f"{line(scope)!r} is no scope: write {forms}"


def moment(text: str) -> float | None:
    """A date as services write it: ISO 8601, RFC 5322, or seconds since the epoch; UTC where it does not say."""
    if re.fullmatch(r"\d{9,11}(\.\d{1,6})?", text):
        return float(text)
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = parse(re.sub(r" UTC$", "Z" if parse is datetime.fromisoformat else " +0000", text))
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError, TypeError, IndexError):
            continue
    return None


def _form(row: list[str], defaults: Defaults) -> tuple[Form, bool]:
    """Whose file it is, by its first line, and whether that is a header."""
    names = [re.sub(r"[\s_]", "", field).lower() for field in row]
    names[0] = names[0].lstrip("\ufeff")
    columns = {name: at for at, name in reversed(list(enumerate(names)))}
    for whose, needed, reason in _FORMS:
        if needed <= columns.keys():
            return _with_reason(Form(whose, columns, reason), defaults), True
    if _ADDRESS.fullmatch(row[0].strip().lstrip("\ufeff")):
        row[0] = row[0].strip().lstrip("\ufeff")
        second = {"reason": 1} if len(row) > 1 else {}
        return _with_reason(Form("addresses", {"address": 0, **second}), defaults), False
    hint = "; columns have commas between them" if ";" in row[0] else ""
    raise UnreadableError(f"its first line is neither a header that is known nor an address{hint}")


def _with_reason(form: Form, defaults: Defaults) -> Form:
    if (
        not form.reason
        and not defaults.reason
        and "reason" not in form.columns
        and "suppressionreason" not in form.columns
    ):
        raise UnreadableError("it does not say why these addresses are suppressed: add --reason")
    return form


def _suppression(form: Form, row: list[str], defaults: Defaults) -> Suppression | str:
    """What a line asks for, or why it is left out."""
    name = form.of(row, "address", "email", "emailaddress")
    if not _ADDRESS.fullmatch(name):
        return "no address" if not name else f"{line(name[:80])!r} is no address"
    if _TEMPORARY.match(form.of(row, "status", "code")):
        return f"{name}: a temporary refusal suppresses nobody"
    reason = defaults.reason or form.reason or _reason(form.of(row, "suppressionreason", "reason"))
    if not reason:
        return f"{name}: why it is suppressed cannot be read"
    scope = form.of(row, "scope") or defaults.scope or ("" if reason == UNSUBSCRIBED else "everywhere")
    if not scope:
        return f"{name}: an unsubscribe is for one list or sender: add --scope"
    if problem := scope_problem(scope):
        return f"{name}: {problem}"
    found = _times(form, row, reason, defaults)
    if isinstance(found, str):
        return f"{name}: {line(found[:40])!r} is no date"
    count = form.of(row, "count")
    said = form.of(row, "evidence", "error") or (form.of(row, "reason") if form.reason else "")
    times, provider = int(count) if re.fullmatch(r"\d{1,9}", count) else 1, line(form.of(row, "provider"))[:50]
    return Suppression(name, as_mail_has_it(scope), reason, *found, line(said), times, provider)


def _times(form: Form, row: list[str], reason: str, defaults: Defaults) -> tuple[float, float | None] | str:
    """When it began, and when it ends; or what stands there and is no date. A file of ours says it of every line."""
    since, until = form.of(row, "since", "createdat", "created", "lastupdatetime"), form.of(row, "until")
    began = moment(since) if since else defaults.now
    ends = moment(until) if until else None if form.whose == "postmeter" else defaults.until(reason)
    if began is None:
        return since
    return until if until and ends is None else (began, ends)


def _reason(text: str) -> str:
    word = re.sub(r"[\s_-]", "", text).lower()
    return word if word in REASONS else _WORDS.get(word, "")


def _iso(when: float) -> str:
    when = min(max(when, 0.0), _LAST)
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
