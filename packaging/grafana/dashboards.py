"""Makes the dashboards beside it, `make dashboards`, with Grafana's own types (grafana-foundation-sdk).

What is shown is two lists of panels; how it is drawn is the rest. Every query sums over what no panel tells apart, goes
by labels that are bounded (metrics.py), and by the variables host (the label `instance` of a scrape), domain, provider.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as drawn
from grafana_foundation_sdk.models import dashboard as made

HERE = "instance=~\"$host\""
DOMAIN = f"{HERE}, domain=~\"$domain\""
PROVIDER = f"{HERE}, provider=~\"$provider\""
BOTH = f"{DOMAIN}, provider=~\"$provider\""
SOURCE = made.DataSourceRef(type_val="prometheus", uid="${datasource}")
VARIABLES = (
    ("host", "Host", "label_values(postmeter_build_info, instance)"),
    ("domain", "From domain", f"label_values(postmeter_deliveries_total{{{HERE}}}, domain)"),
    ("provider", "Provider", f"label_values(postmeter_deliveries_total{{{HERE}}}, provider)"),
)
GREEN, YELLOW, RED = "green", "orange", "red"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `queries` are (expression, legend); `steps` say from which value on it is yellow and red.

    A `number` tells what the whole time shown comes to, or what is so now; `bars` do so for each series, `names` tell
    their legends. Else it is a graph, stacked when its series add up to something.
    """

    title: str
    about: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    number: bool = False
    bars: bool = False
    names: bool = False
    stacked: bool = False
    width: int = 8
    steps: tuple[float, ...] = ()
    below: bool = False
    """It is what lies below the step that is bad."""
    decimals: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: Sequence[Panel]


def total(name: str, where: str = HERE) -> str:
    """How many in the time shown."""
    return f"sum(increase(postmeter_{name}{{{where}}}[$__range]))"


def minute(name: str, by: str, where: str = HERE) -> str:
    """How many a minute, told apart by labels; of a long list of values those that there were any of."""
    happens = f"60 * sum by ({by}) (rate(postmeter_{name}{{{where}}}[$__rate_interval]))"
    return f"{happens} and on ({by}) {_some(name, by, where)}"


def times(name: str, by: str, where: str = HERE) -> str:
    """How often it has just happened: of what is seldom."""
    happened = f"sum by ({by}) (increase(postmeter_{name}{{{where}}}[$__rate_interval]))"
    return f"{happened} and on ({by}) {_some(name, by, where)}"


def _some(name: str, by: str, where: str) -> str:
    """Those that happened in the time shown; asked once a graph and not at each of its points."""
    return f"(sum by ({by}) (increase(postmeter_{name}{{{where}}}[$__range] @ end())) > 0)"


def now(name: str, by: str, where: str = HERE, how: str = "max") -> str:
    """What a gauge says; nothing to tell apart where `by` is empty."""
    return f"{how} by ({by}) (postmeter_{name}{{{where}}})" if by else f"{how}(postmeter_{name}{{{where}}})"


def quantile(share: str, name: str, where: str = HERE, by: str = "le") -> str:
    return f"histogram_quantile({share}, sum by ({by}) (rate(postmeter_{name}_bucket{{{where}}}[$__rate_interval])))"


def number(title: str, about: str, query: str, **more: object) -> Panel:
    return Panel(title, about, [(query, "")], number=True, width=3, **{"decimals": 0, "unit": "locale", **more})  # type: ignore[arg-type]


_DECIDED = f"{BOTH}, status=~\"sent|bounced|expired\""
_BY_PROVIDER = f"{PROVIDER}, status=~\"sent|bounced|expired\""

BUSINESS = (
    Row("In the time shown", (
        number("Recipients", "Recipients of accepted messages of ours, of all domains.", total("recipients_total")),
        number("Delivered", "Recipients whose mail the next server took.",
               total("deliveries_total", f"{BOTH}, status=\"sent\"")),
        number("Bounced", "Recipients whose mail came back, for good or because Postfix gave up; of all domains.",
               total("bounces_total", PROVIDER)),
        number("Opened", "Opens by people, as far as can be told; of all domains and providers.",
               total("opens_total", f"{HERE}, by=\"human\"")),
        number("Clicked", "Tracked links followed by people, as far as can be told; of all domains and providers.",
               total("clicks_total", f"{HERE}, by=\"human\"")),
        number("Complaints", "Feedback reports; of all domains and providers.", total("complaints_total")),
        number("Unsubscribes", "One-click unsubscriptions; of all domains and providers.",
               total("unsubscribes_total")),
        number("Suppressed", "Recipients not written to because of an earlier bounce, complaint or unsubscription.",
               total("suppressed_total")),
    )),
    Row("Delivery", (
        Panel("What becomes of mail", "Recipients a minute, by what they came to: one that is deferred and then sent "
              "is in both.", [(minute("deliveries_total", "status", BOTH), "{{status}}")], stacked=True),
        Panel("Delivered by From domain", "Recipients a minute.",
              [(minute("deliveries_total", "domain", f"{BOTH}, status=\"sent\""), "{{domain}}")], stacked=True),
        Panel("Delivered by provider", "Recipients a minute.",
              [(minute("deliveries_total", "provider", f"{BOTH}, status=\"sent\""), "{{provider}}")], stacked=True),
        Panel("Delivery takes", "From submission to delivery, of half of the mail and of 95%; of all domains and "
              "providers.",
              [(quantile("0.5", "delivery_delay_seconds"), "half"),
               (quantile("0.95", "delivery_delay_seconds"), "95%")], unit="s"),
        Panel("Share delivered", "Of the recipients that were decided, in the time shown. Whose mail the next server "
              "took and sent back later counts as delivered and as bounced: where that is every tenth, the share reads "
              "91% and not 90%. postmeter report counts each where it is now.",
              [(f"sum by (provider) (increase(postmeter_deliveries_total{{{BOTH}, status=\"sent\"}}[$__range])) / "
                f"(sum by (provider) (increase(postmeter_deliveries_total{{{_DECIDED}}}[$__range])) > 0)",
                "{{provider}}")], unit="percentunit", bars=True),
        Panel("Still deferred", "Recipients that Postfix will try again.",
              [(now("queue_recipients", "provider", f"{PROVIDER}, state=\"deferred\"", "sum"), "{{provider}}")],
              stacked=True),
    )),
    Row("Reputation", (
        Panel("Bounce rate", "Hard bounces of 7 days over the recipients that were decided, on the host where that is "
              "most. Amazon SES looks at an account at 5% and may stop it at 10%.",
              [(now("bounce_rate", "domain", DOMAIN), "{{domain}}")], unit="percentunit", steps=(0.05, 0.10)),
        Panel("Complaint rate", "Complaints of 7 days over delivered recipients, on the host where that is most. Gmail "
              "asks for less than 0.1%, and never 0.3%.",
              [(now("complaint_rate", "domain", DOMAIN), "{{domain}}")], unit="percentunit", steps=(0.001, 0.003)),
        Panel("What the rates are worth", "Recipients of 7 days that were decided, on all hosts: a rate of a few "
              "hundred says little.",
              [(now("rated_recipients", "domain", DOMAIN, "sum"), "{{domain}}")]),
        Panel("Bounces by kind", "Recipients a minute: hard when the address is at fault, soft when not, expired when "
              "Postfix gave up.", [(minute("bounces_total", "type", PROVIDER), "{{type}}")], stacked=True),
        Panel("Bounces by provider", "Of the recipients that were decided, in the time shown; all domains. Whose mail "
              "was taken and came back later counts as delivered as well, so the share is a little low.",
              [(f"sum by (provider) (increase(postmeter_bounces_total{{{PROVIDER}}}[$__range])) / "
                f"(sum by (provider) (increase(postmeter_deliveries_total{{{_BY_PROVIDER}}}[$__range])) > 0)",
                "{{provider}}")], unit="percentunit", bars=True),
        Panel("Suppressed by reason", "Recipients a minute that were not written to, and those that "
              "suppression.observe wrote to all the same.",
              [(minute("suppressed_total", "reason"), "{{reason}}"),
               (minute("suppression_observed_total", "reason"), "{{reason}}, observed")]),
    )),
    Row("Readers", (
        Panel("Opens", "A minute, by people, machines, or unsure whom.", [(minute("opens_total", "by"), "{{by}}")],
              stacked=True),
        Panel("Clicks", "A minute, by people, machines, or unsure whom.", [(minute("clicks_total", "by"), "{{by}}")],
              stacked=True),
        Panel("Complaints and unsubscribes", "A minute.",
              [(f"60 * sum(rate(postmeter_complaints_total{{{HERE}}}[$__rate_interval]))", "complaints"),
               (f"60 * sum(rate(postmeter_unsubscribes_total{{{HERE}}}[$__rate_interval]))", "unsubscribes")]),
    )),
)  # fmt: skip

OPERATORS = (
    Row("Now", (
        number("Longest silence", "Since the daemon that has been silent for longest was last alive.",
               f"time() - min(postmeter_daemon_seen_timestamp_seconds{{{HERE}}})", unit="s", steps=(30, 60)),
        number("Stores", "0 when any host cannot read the store of its quotas.", now("quota_store_up", "", how="min"),
               steps=(1,), below=True),
        number("Failures", "Bugs and failures of our own in the time shown.", total("errors_total"), steps=(1,)),
        number("Keys that fail", "DKIM keys that DNS does not show.",
               f"count(min by (domain, selector) (postmeter_dkim_key_ok{{{DOMAIN}}}) == 0) "
               f"or sum(0 * postmeter_dkim_key_ok{{{DOMAIN}}})",
               steps=(1,)),
        number("Braked logins", "Stopped by the brake, on the host with most of them: hosts that share quotas stop the "
               "same.", now("brake_logins", "", how="max"), steps=(1,)),
        number("On hold", "Messages in Postfix's hold queue for a quota or the brake.",
               now("held_messages", "", how="sum")),
        number("Unread log", "Bytes of Postfix's log.", now("log_lag_bytes", "", how="max"), unit="bytes",
               steps=(1e6, 20e6)),
        number("Free disk", "Of the fullest disk that a journal lies on.", now("disk_free_bytes", "", how="min"),
               unit="bytes", steps=(1e9,), below=True),
    )),
    Row("Messages", (
        Panel("Messages by result", "A minute: deferred is 4xx, rejected 5xx, passed is mail that is not ours.",
              [(minute("messages_total", "result"), "{{result}}")], stacked=True),
        Panel("Messages by service", "A minute.", [(minute("messages_total", "service"), "{{service}}")], stacked=True),
        Panel("Refused for a quota", "Messages a minute, also where a limit only observes, by the limit's window and "
              "unit.",
              [(minute("quota_refusals_total", "window, unit"), "{{unit}}/{{window}}")]),
        Panel("From domains that do not fit", "Messages a minute whose login may not use their From domain.",
              [(minute("from_mismatch_total", "action"), "{{action}}")]),
        Panel("Stopped", "Logins stopped by the brake, and messages on hold.",
              [(now("brake_logins", "instance"), "logins braked, {{instance}}"),
               (now("held_messages", "instance"), "messages on hold, {{instance}}")]),
        Panel("What came back", "Messages a minute that came back, by what became of them.",
              [(minute("feedback_total", "result"), "{{result}}")]),
    )),
    Row("Latency", (
        Panel("A message takes", "In the milter, at its end: half of the messages, 95%, 99%.",
              [(quantile(share, "callback_seconds", f"{HERE}, stage=\"eom\""), name)
               for share, name in (("0.5", "half"), ("0.95", "95%"), ("0.99", "99%"))], unit="s"),
        Panel("Each stage takes", "95% of the callbacks, by stage.",
              [(quantile("0.95", "callback_seconds", by="stage, le"), "{{stage}}")], unit="s"),
        Panel("Busy by stage", "Seconds of work in a second: what a stage costs in all.",
              [(f"sum by (stage) (rate(postmeter_callback_seconds_sum{{{HERE}}}[$__rate_interval]))", "{{stage}}")],
              unit="s", stacked=True),
    )),
    Row("Queue and log", (
        Panel("In the queue", "Recipients of mail of ours.",
              [(now("queue_recipients", "state", PROVIDER, "sum"), "{{state}}")], stacked=True),
        Panel("Deferred by provider", "Recipients that Postfix will try again.",
              [(now("queue_recipients", "provider", f"{PROVIDER}, state=\"deferred\"", "sum"), "{{provider}}")],
              stacked=True),
        Panel("Oldest in the queue", "How long the oldest recipient has been there.",
              [(now("queue_oldest_seconds", "state", PROVIDER), "{{state}}")], unit="s"),
        Panel("Deferrals by provider", "Recipients a minute that a server did not take now.",
              [(minute("deliveries_total", "provider", f"{BOTH}, status=\"deferred\""), "{{provider}}")]),
        Panel("Log unread", "Bytes of Postfix's log.", [(now("log_lag_bytes", "instance"), "{{instance}}")],
              unit="bytes"),
        Panel("Log lost", "Gaps: what became of some mail will stay unknown.",
              [(times("log_gaps_total", "instance"), "{{instance}}")]),
    )),
    Row("Failures and stores", (
        Panel("Failures by place", "A minute; anything but 0 is worth a look into the log.",
              [(minute("errors_total", "where"), "{{where}}")]),
        Panel("Store of the quotas", "1 when it could be read, and failures a minute.",
              [(now("quota_store_up", "instance", how="min"), "up, {{instance}}"),
               (minute("quota_store_errors_total", "instance"), "failures, {{instance}}")]),
        Panel("Not shipped", "Events not yet in PostgreSQL.",
              [(now("ship_lag_events", "instance"), "{{instance}}")]),
        Panel("Webhooks", "Calls that failed and events given up, a minute.",
              [(minute("webhook_failures_total", "instance"), "failed, {{instance}}"),
               (minute("webhook_dropped_total", "instance"), "given up, {{instance}}")]),
        Panel("Disk", "Free on the disk of the journal.",
              [(now("disk_free_bytes", "instance", how="min"), "{{instance}}")], unit="bytes"),
        Panel("Daemons", "Since each was last alive.",
              [(f"time() - min by (instance, daemon) (postmeter_daemon_seen_timestamp_seconds{{{HERE}}})",
                "{{daemon}}, {{instance}}")], unit="s", steps=(30, 60)),
        Panel("Providers not believed", "Times that a provider refused so many that its bounces suppress nobody.",
              [(times("provider_mistrusted_total", "provider", PROVIDER), "{{provider}}")]),
        Panel("Version", "By the daemon that shows the figures.",
              [(now("build_info", "instance, version"), "{{version}}, {{instance}}")], names=True),
        Panel("Configuration", "How long ago it was taken over.",
              [(f"time() - max by (instance) (postmeter_config_reload_timestamp_seconds{{{HERE}}})", "{{instance}}")],
              unit="s"),
    )),
    Row("Signatures and links", (
        Panel("Signatures", "A minute, by From domain and algorithm.",
              [(minute("dkim_signatures_total", "domain, algorithm", DOMAIN), "{{domain}}, {{algorithm}}")],
              stacked=True),
        Panel("Unsigned", "Messages of ours a minute, by reason.",
              [(minute("dkim_unsigned_total", "reason"), "{{reason}}")]),
        Panel("Signed, and may break", "Messages a minute that a later hop may change, by why they were left as they "
              "are.",
              [(minute("dkim_fragile_total", "reason"), "{{reason}}")]),
        Panel("Keys in DNS", "1 when DNS shows the key.",
              [(now("dkim_key_ok", "domain, selector", DOMAIN, "min"), "{{selector}} of {{domain}}")],
              steps=(1,), below=True),
        Panel("DNS last told", "How long ago, of the key that it has told nothing of for longest.",
              [(f"time() - min by (instance) (postmeter_dkim_checked_timestamp_seconds{{{HERE}}})", "{{instance}}")],
              unit="s"),
        Panel("Links", "A minute: links rewritten, HTML that became too long for Gmail.",
              [(f"60 * sum(rate(postmeter_links_rewritten_total{{{HERE}}}[$__rate_interval]))", "rewritten"),
               (f"60 * sum(rate(postmeter_html_clipped_total{{{HERE}}}[$__rate_interval]))", "clipped")]),
        Panel("Left as it is", "Links, parts and messages a minute, by reason.",
              [(minute("rewrite_skipped_total", "reason"), "{{reason}}")], width=12),
        Panel("Switches", "Fields a minute by which senders ask something, by what became of them.",
              [(minute("switches_total", "result"), "{{result}}")], width=12),
    )),
)  # fmt: skip


# --- how it is drawn


def steps(panel: Panel) -> dashboard.ThresholdsConfig:
    """From a value on yellow, from the last red; the other way round where little is bad."""
    if panel.below:
        colours = [RED, *[GREEN] * len(panel.steps)]
    else:
        colours = [GREEN, *([YELLOW, RED] if len(panel.steps) == 2 else [RED] * len(panel.steps))]
    bounds = [None, *panel.steps]
    found = [made.Threshold(value=bound, color=colour) for bound, colour in zip(bounds, colours, strict=True)]
    return dashboard.ThresholdsConfig().mode(made.ThresholdsMode.ABSOLUTE).steps(found)


def query(panel: Panel, nth: int) -> prometheus.Dataquery:
    expression, legend = panel.queries[nth]
    asked = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + nth))
    asked = asked.datasource(SOURCE)
    return asked.instant() if panel.number or panel.bars or panel.names else asked.range()


def as_number(panel: Panel) -> stat.Panel:
    last = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    colour = drawn.BigValueColorMode.VALUE if panel.steps else drawn.BigValueColorMode.NONE
    drawing = stat.Panel().reduce_options(last).color_mode(colour).graph_mode(drawn.BigValueGraphMode.NONE)
    return drawing.text_mode(drawn.BigValueTextMode.NAME).height(8) if panel.names else drawing.height(4)


def as_bars(panel: Panel) -> bargauge.Panel:
    last = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    drawing = bargauge.Panel().reduce_options(last).orientation(drawn.VizOrientation.HORIZONTAL).min(0)
    return drawing.display_mode(drawn.BarGaugeDisplayMode.BASIC).height(8)


def as_graph(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).display_mode(drawn.LegendDisplayMode.LIST)
    legend = legend.placement(drawn.LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(drawn.TooltipDisplayMode.MULTI).sort(drawn.SortOrder.DESCENDING)
    drawing = timeseries.Panel().legend(legend).tooltip(tooltip).min(0).line_width(1)
    drawing = drawing.fill_opacity(30 if panel.stacked else 5).show_points(drawn.VisibilityMode.NEVER)
    if panel.stacked:
        drawing = drawing.stacking(common.StackingConfig().mode(drawn.StackingMode.NORMAL).group("A"))
    if panel.steps:
        line = common.GraphThresholdsStyleConfig().mode(drawn.GraphTresholdsStyleMode.DASHED)
        drawing = drawing.thresholds_style(line)
    return drawing.height(8)


def draw(panel: Panel, number: int) -> stat.Panel | bargauge.Panel | timeseries.Panel:
    how = as_number if panel.number or panel.names else as_bars if panel.bars else as_graph
    drawing = how(panel)
    drawing = drawing.id(number).title(panel.title).description(panel.about).datasource(SOURCE).unit(panel.unit)
    drawing = drawing.span(panel.width).thresholds(steps(panel)).no_value("none")
    if panel.decimals is not None:
        drawing = drawing.decimals(panel.decimals)
    for nth in range(len(panel.queries)):
        drawing = drawing.with_target(query(panel, nth))
    return drawing


def variables() -> list[Builder[made.VariableModel]]:
    everything = made.VariableOption(selected=True, text="All", value="$__all")
    chosen: list[Builder[made.VariableModel]] = [
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    ]
    for name, label, asked in VARIABLES:
        chosen.append(
            dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(asked).multi(True).include_all(True)
            .all_value(".*").current(everything).refresh(made.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(made.VariableSort.ALPHABETICAL_ASC)
        )  # fmt: skip
    return chosen


def board(name: str, title: str, about: str, rows: Sequence[Row], *, span: str) -> made.Dashboard:
    page = dashboard.Dashboard(title).uid(f"postmeter-{name}").description(about).tags(["postmeter", "mail"])
    page = page.time(span, "now").timezone("browser").refresh("1m").tooltip(made.DashboardCursorSync.CROSSHAIR)
    page = page.variables(variables())
    page = page.link(dashboard.DashboardLink("postmeter").type(made.DashboardLinkType.DASHBOARDS).tags(["postmeter"])
                     .as_dropdown(True).include_vars(True).keep_time(True))  # fmt: skip
    number = 1
    for row in rows:
        page = page.with_row(dashboard.Row(row.title).id(number))
        number += 1
        for panel in row.panels:
            page = page.with_panel(draw(panel, number))
            number += 1
    return page.build()


def main(folder: Path) -> None:
    boards = (
        board("business", "postmeter: mail", "What was sent and what became of it.", BUSINESS, span="now-7d"),
        board("operators", "postmeter: operation", "Whether all of it is well.", OPERATORS, span="now-6h"),
    )
    for each in boards:
        text = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(each)
        (folder / f"{each.uid}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
