"""What a field by which a sender asks something says: a reader for each kind of value, nothing of names or services.

Pure, bounded, and never raises: what cannot be read says so. JSON is looked at as far as keys are known, whatever else
it holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

ON = "on"
"""Of clicks: as configured, or at least those in HTML."""

_WIDTH = ("off", "html", ON, "html+text")
_YES = frozenset({"yes", "true", "1", "on", "y"})
_NO = frozenset({"no", "false", "0", "off", "n"})
_LONGEST_NAME = 255
_LONGEST_TAG = 100
_LONGEST_JSON = 60_000  # Postfix cuts longer fields (KLUDGE_HEADER_LIMIT)
_MOST_BRACKETS = 500  # real ones have some twenty; half of what json would take before it gives up


@dataclass(frozen=True, slots=True)
class Said:
    """What one field says; all empty where it means nothing here."""

    clicks: str = ""
    """`off`, `html`, `html+text` or `on`."""
    opens: bool | None = None
    campaign: str = ""
    tags: tuple[str, ...] = ()
    data: tuple[tuple[str, str], ...] = ()
    """The sender's own, to be told again with every event."""
    test: bool = False
    """Nobody shall get it."""
    foreign: tuple[str, ...] = ()
    """What it asks for that cannot be done here: keys within the field, or an empty text for the field as a whole."""
    to: tuple[str, ...] = ()
    """The recipients that it names."""
    apart: bool = False
    """No recipient shall see another."""
    unreadable: bool = False


Reader: TypeAlias = Callable[[str], Said]

FOREIGN = Said(foreign=("",))
UNREADABLE = Said(unreadable=True)
UNCLEAR = Said(unreadable=True, foreign=("",))
"""Cannot be read, and may decide what is sent."""


def truth(value: object) -> bool | None:
    """Yes or no, as people and programs write it; none where it is neither."""
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    return True if word in _YES else False if word in _NO else None


def narrowest(clicks: Iterable[str]) -> str:
    """The one by which least is tracked, of those that say anything."""
    return min(filter(None, clicks), key=_WIDTH.index, default="")


def nothing(text: str) -> Said:
    return Said()


def foreign(text: str) -> Said:
    return FOREIGN if text else Said()


def switch(*, yes: Said, no: Said = Said(), other: Said = UNREADABLE) -> Reader:
    """`other` is what anything else than yes and no says. Who gives no value has said nothing."""

    def read(text: str) -> Said:
        said = truth(text)
        return Said() if not text else other if said is None else yes if said else no

    return read


def words(known: Mapping[str, Said], *, other: Said = UNREADABLE) -> Reader:
    """One of some words, in any case."""
    return lambda text: known.get(text.lower(), other) if text else Said()


def listed(known: Mapping[str, Said], *, rest: Said = Said()) -> Reader:
    """Several of them, with commas or spaces between. `rest` is said of what none of them speaks of."""

    def read(text: str) -> Said:
        found = [known.get(word) for word in text.lower().replace(",", " ").split()]
        sayings = [said for said in found if said is not None]
        if not sayings or len(sayings) < len(found):
            return UNREADABLE
        opens = [said.opens for said in sayings if said.opens is not None]
        clicks = narrowest(said.clicks for said in sayings)
        return Said(clicks=clicks or rest.clicks, opens=all(opens) if opens else rest.opens)

    return read


def campaign(text: str) -> Said:
    return Said(campaign=clean(text, _LONGEST_NAME))


def tag(text: str) -> Said:
    return Said(tags=_tags([text]))


def tags(text: str) -> Said:
    """Several in one field, with commas between."""
    return Said(tags=_tags(text.split(",")))


def data(name: str) -> Reader:
    return lambda text: Said(data=((clean(name, _LONGEST_TAG), clean(text, _LONGEST_JSON)),))


def data_object(text: str) -> Said:
    """A JSON object, whatever is in it."""
    found = _object(text)
    return UNREADABLE if found is None else Said(data=tuple(_pairs(found)))


def data_pairs(text: str) -> Said:
    """`name=value, name=value`; one of the names may be `campaign`."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    found = tuple((clean(name, _LONGEST_TAG), clean(value, _LONGEST_NAME)) for name, equals, value in pairs if equals)
    if not found:
        return UNREADABLE
    return Said(data=found, campaign=next((value for name, value in found if name.lower() == "campaign"), ""))


# What cannot be done here. Of X-SMTPAPI: keys, and settings that are switched on by `enable`
_KEYS = ("sub", "section", "send_at", "send_each_at", "asm_group_id", "asm")
_FILTERS = ("bcc", "footer", "template", "templates", "subscriptiontrack")


def smtpapi(text: str) -> Said:
    """SendGrid's X-SMTPAPI: twilio.com/docs/sendgrid/for-developers/sending-email/building-an-x-smtpapi-header."""
    found = _object(text)
    if found is None:
        return UNCLEAR
    filters = _mapping(found.get("filters"))
    clicks, opens = _settings(filters, "clicktrack"), _settings(filters, "opentrack")
    asked = [key for key in _KEYS if found.get(key)]
    asked += [f"filters.{name}" for name in _FILTERS if truth(_settings(filters, name).get("enable"))]
    if opens.get("replace") and truth(opens.get("enable")):
        asked.append("filters.opentrack.replace")
    sandbox = _mapping(_mapping(found.get("mail_settings")).get("sandbox_mode"))
    return Said(
        clicks=_clicks(truth(clicks.get("enable")), "html+text" if truth(clicks.get("enable_text")) else "html"),
        opens=truth(opens.get("enable")),
        tags=_tags(_texts(found.get("category"))),
        data=tuple(_pairs(_mapping(found.get("unique_args")))),
        test=truth(sandbox.get("enable")) is True,
        foreign=tuple(asked),
        to=tuple(_texts(found.get("to"))),
    )


def msys(text: str) -> Said:
    """SparkPost's X-MSYS-API: developers.sparkpost.com/api/smtp."""
    found = _object(text)
    if found is None:
        return UNCLEAR
    options = _mapping(found.get("options"))
    return Said(
        clicks=_clicks(truth(options.get("click_tracking")), ON),
        opens=truth(options.get("open_tracking")),
        campaign=clean(_text(found.get("campaign_id")), _LONGEST_NAME),
        tags=_tags(_texts(found.get("tags"))),
        data=tuple(_pairs(_mapping(found.get("metadata")))),
        foreign=tuple(key for key in ("cc", "bcc", "archive") if found.get(key))
        + (("options.start_time",) if options.get("start_time") else ()),
    )


def clean(text: str, most: int) -> str:
    """What can be shown, logged and kept anywhere."""
    return "".join([char for char in text[:most] if char.isprintable()]).strip()


def _clicks(wanted: bool | None, how: str) -> str:
    return "" if wanted is None else how if wanted else "off"


def _tags(texts: list[str]) -> tuple[str, ...]:
    return tuple(tag for text in texts if (tag := clean(text, _LONGEST_TAG)))


def _object(text: str) -> dict[str, object] | None:
    if len(text) > _LONGEST_JSON or text.count("[") + text.count("{") > _MOST_BRACKETS:
        return None
    try:
        found = json.loads(text, strict=False)  # a folded line may leave a tab within a text
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _settings(filters: dict[str, object], name: str) -> dict[str, object]:
    return _mapping(_mapping(filters.get(name)).get("settings"))


def _texts(value: object) -> list[str]:
    """A text, or a list of them."""
    several = value if isinstance(value, list) else [value]
    return [text for one in several if (text := _text(one))]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


def _pairs(found: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in found.items():
        yield clean(name, _LONGEST_TAG), clean(_text(value), _LONGEST_JSON)
