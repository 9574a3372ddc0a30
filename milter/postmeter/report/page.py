"""A report as one page of HTML that needs nothing else: no script, no font, no image; light and dark, and on paper.

The same page without its chart is the HTML part of a mail, whose readers show no SVG. Names come from clients: they
are text wherever they stand, and a policy lets nothing be loaded or run (CSP Level 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files

from postmeter.report import chart
from postmeter.report.gather import COLUMNS, PLACES, RATES, TRACKED, Figures, Part, Report, decided, percent, shown
from postmeter.report.text import notes
from postmeter.runtime.logs import one_line

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MOST = 25  # parts of a breakdown
_NAME = 80  # characters of a name
_TILES = ("delivered", "bounced", "complained", "opened_human", "clicked_human")
_TITLES = {"domain": "From domains", "login": "Logins", "campaign": "Campaigns", "provider": "Providers", "day": "Days"}
_HEADS = {
    "accepted": "accepted", "delivered": "delivered", "deferred": "deferred", "hard": "hard", "soft": "soft",
    "complained": "spam", "unsubscribed": "left", "opened_human": "opened", "clicked_human": "clicked",
}  # fmt: skip

# At which Amazon SES looks at an account, and may stop it
# (docs.aws.amazon.com/ses/latest/dg/reputationdashboardmessages.html); of bounces it counts the hard ones.
_BOUNDS = {"hard": (0.05, 0.10), "complained": (0.001, 0.005)}
_ENOUGH = 200  # decided recipients; a rate of fewer says little


def page(report: Report, *, mail: bool = False) -> str:
    """`mail`: without SVG."""
    style = files("postmeter.report").joinpath("page.css").read_text("utf-8")
    title = f"Mail report, {report.period}"
    made = datetime.fromtimestamp(report.made, UTC).strftime("%Y-%m-%d %H:%M")
    body = "\n".join(_body(report, mail=mail))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>Mail report</h1><p>{report.period} <small>(UTC)</small> · <bdi>{_text(report.host)}</bdi></p></header>
{body}
<footer>postmeter, {made} UTC</footer>
</body>
</html>
"""


def _body(report: Report, *, mail: bool) -> Iterator[str]:
    if not any(report.total.values()):
        yield "<main><p>No mail in these days.</p></main>"
        return
    yield "<main>"
    yield _tiles(report)
    yield _overview(report, mail=mail)
    yield _figures(report)
    for by, parts in report.parts.items():
        if parts and (by != "day" or len(parts) > 1):
            yield _breakdown(by, parts, report)
    yield "".join(f"<p class=note>{_text(note)}</p>" for note in notes(report))
    yield "</main>"


def _tiles(report: Report) -> str:
    tiles = [_tile("accepted", f"{report.total.get('accepted', 0):,}", "recipients", ("", ""))]
    for name in _TILES:
        rate = RATES[name]
        if name in TRACKED and not report.tracked:
            continue
        told = COLUMNS.get(name, name)
        tiles.append(_tile(told, percent(rate.value(report.total)), f"of {rate.of}", _alarm(name, report.total)))
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _tile(name: str, value: str, below: str, alarm: tuple[str, str]) -> str:
    """An alarm is said in words as well: nobody has to see colours."""
    kind, said = alarm
    mark = f"<em>{said}</em>" if said else ""
    return f'<div class="tile {kind}"><span>{name}</span><strong>{value}</strong><small>{below}</small>{mark}</div>'


def _alarm(name: str, counts: Figures) -> tuple[str, str]:
    """The class and the words; bounces alarm by the hard ones among them."""
    name = "hard" if name == "bounced" else name
    for kind, bound in zip(("alarm", "warn"), reversed(_BOUNDS.get(name, ())), strict=False):
        value = RATES[name].value(counts)
        if value is not None and value >= bound and decided(counts) >= _ENOUGH:
            return kind, f"{COLUMNS[name]}: above {bound * 100:g}%"
    return "", ""


def _overview(report: Report, *, mail: bool) -> str:
    key = "".join(
        f'<li><span class="{kind}"></span>{name} <b>{value:,}</b></li>'
        for name, kind, value in chart.stacked(report.total)
    )
    drawn = "" if mail or len(report.days) < 2 else chart.days(report.days)
    strip = chart.strip(report.total)
    return f"<section><h2>Where the mail is</h2>{strip}<ul class=key>{key}</ul>{drawn}</section>"


def _figures(report: Report) -> str:
    """What became of the mail, and what people made of it, side by side where there is room."""
    names = [name for name in COLUMNS if report.total.get(name) or name in ("accepted", *PLACES, "complained")]
    at = names.index("complained")
    tables = "".join(
        f"<table class=figures>{''.join(_figure(name, report.total) for name in some)}</table>"
        for some in (names[:at], names[at:])
    )
    return f"<section><h2>Figures</h2><div class=pair>{tables}</div></section>"


def _figure(name: str, counts: Figures) -> str:
    rate = RATES[name].value(counts) if name in RATES else None
    share = (
        f"<td>{percent(rate)}</td><td class=of>of {RATES[name].of}</td>" if rate is not None else "<td></td><td></td>"
    )
    return f"<tr><th scope=row>{COLUMNS[name]}</th><td>{counts.get(name, 0):,}</td>{share}</tr>"


def _breakdown(by: str, parts: Sequence[Part], report: Report) -> str:
    columns = [name for name in _HEADS if name not in TRACKED or (report.tracked and by != "provider")]
    heads = "".join(f"<th scope=col>{_HEADS[name]}</th>" for name in columns)
    told = parts if by == "day" else parts[:_MOST]
    rows = "".join(_row(by, part, columns) for part in told)
    rest = f"<p class=note>and {len(parts) - len(told)} less busy</p>" if len(parts) > len(told) else ""
    table = (
        f"<table><thead><tr><th scope=col></th>{heads}<th class=bars></th></tr></thead><tbody>{rows}</tbody></table>"
    )
    return f"<section><h2>{_TITLES[by]}</h2><div class=wide>{table}</div>{rest}</section>"


def _row(by: str, part: Part, columns: Sequence[str]) -> str:
    cells = "".join(f"<td{_class(name, part.counts)}>{_cell(name, part.counts)}</td>" for name in columns)
    name = f"<bdi>{_text(shown(by, part.name))}</bdi>"
    return f"<tr><th scope=row>{name}</th>{cells}<td class=bars>{chart.strip(part.counts)}</td></tr>"


def _class(name: str, counts: Figures) -> str:
    kind, _ = _alarm(name, counts)
    return f" class={kind}" if kind else ""


def _cell(name: str, counts: Figures) -> str:
    """A figure and, under it, its share."""
    value = counts.get(name, 0)
    rate = RATES[name].value(counts) if name in RATES else None
    share = f"<small>{percent(rate)}</small>" if rate is not None and value else ""
    return f"{value:,}{share}"


def _text(name: str) -> str:
    return escape(one_line(name, longest=_NAME))
