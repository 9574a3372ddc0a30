"""Header fields by which senders ask something of the service that sends their mail: ours, and other services'.

Data alone. A field stands here by the name and the values that its service publishes; what is in no list passes as it
is. Where a service means something that cannot be done here, its field is `foreign`, if without it other mail would be
sent, or at another time, or to others. What only changes how mail is handled is understood as nothing.

Published: documentation.mailgun.com (pass-sending-options), twilio.com/docs/sendgrid (building-an-x-smtpapi-header,
smtp-filters), postmarkapp.com/developer (sending-with-smtp, tracking-links), dev.mailjet.com (custom_headers, template
language), mandrill.zendesk.com (SMTP headers), docs.aws.amazon.com/ses (event-publishing-send-email),
developers.brevo.com (smtp-integration), developers.sparkpost.com/api/smtp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from postmeter.tracking import sayings
from postmeter.tracking.sayings import FOREIGN, ON, UNCLEAR, Reader, Said, foreign, listed, nothing, switch, words

_TEST = switch(yes=Said(test=True), other=UNCLEAR)
_OPENS = switch(yes=Said(opens=True), no=Said(opens=False))
_NONE = Said(clicks="off", opens=False)
_BOTH = Said(clicks=ON, opens=True)
_IF_ON = switch(yes=FOREIGN, other=UNCLEAR)

_OURS: dict[str, Reader] = {
    "X-Postmeter-Track": listed(
        {
            "off": _NONE,
            "clicks": Said(clicks=ON),
            "html": Said(clicks="html"),
            "html+text": Said(clicks="html+text"),
            "opens": Said(opens=True),
            "all": _BOTH,
        },
        rest=_NONE,
    ),
    "X-Postmeter-Campaign": sayings.campaign,
    "X-Postmeter-Tag": sayings.tags,
    "X-Postmeter-Test": _TEST,
}

_MAILGUN: dict[str, Reader] = {
    "X-Mailgun-Track": switch(yes=_BOTH, no=_NONE),
    "X-Mailgun-Track-Clicks": words(
        {
            "htmlonly": Said(clicks="html"),
            **dict.fromkeys(("yes", "true"), Said(clicks="html+text")),
            **dict.fromkeys(("no", "false"), Said(clicks="off")),
        }
    ),
    "X-Mailgun-Track-Opens": _OPENS,
    "X-Mailgun-Campaign-Id": sayings.campaign,
    "X-Mailgun-Tag": sayings.tag,
    "X-Mailgun-Variables": sayings.data_object,
    "X-Mailgun-Drop-Message": _TEST,
    "X-Mailgun-Deliver-By": foreign,
    "X-Mailgun-Deliver-Within": foreign,
    "X-Mailgun-Delivery-Time-Optimize-Period": foreign,
    "X-Mailgun-Time-Zone-Localize": foreign,
    "X-Mailgun-Recipient-Variables": foreign,
    "X-Mailgun-Template-Name": foreign,
    "X-Mailgun-Template-Version": foreign,
    "X-Mailgun-Template-Variables": foreign,
    "X-Mailgun-Archive-To": foreign,
    "X-Mailgun-Require-TLS": _IF_ON,
    "X-Mailgun-Skip-Verification": nothing,
    "X-Mailgun-Dkim": nothing,
    "X-Mailgun-Secondary-Dkim": nothing,
    "X-Mailgun-Secondary-Dkim-Public": nothing,
    "X-Mailgun-Sending-Ip": nothing,
    "X-Mailgun-Sending-Ip-Pool": nothing,
    "X-Mailgun-Track-Pixel-Location-Top": nothing,
    "X-Mailgun-Suppress-Headers": nothing,
}

_POSTMARK: dict[str, Reader] = {
    "X-PM-TrackOpens": _OPENS,
    "X-PM-TrackLinks": words(
        {
            "none": Said(clicks="off"),
            "htmlonly": Said(clicks="html"),
            "htmlandtext": Said(clicks="html+text"),
            "textonly": Said(clicks="off"),  # which we cannot do; less than was asked, never more
        }
    ),
    "X-PM-Tag": sayings.tag,
    "X-PM-Message-Stream": nothing,
    "X-PM-KeepID": nothing,
}
_POSTMARK_DATA = b"x-pm-metadata-"

_MAILJET: dict[str, Reader] = {
    "X-Mailjet-TrackOpen": _OPENS,
    "X-Mailjet-TrackClick": switch(yes=Said(clicks=ON), no=Said(clicks="off")),
    "X-Mailjet-Campaign": sayings.campaign,
    "X-Mailjet-DeduplicateCampaign": _IF_ON,  # nobody shall get two of that campaign
    "X-Mailjet-Prio": nothing,
    "X-MJ-CustomID": sayings.data("CustomID"),
    "X-MJ-EventPayload": sayings.data("EventPayload"),
    "X-MJ-TemplateID": foreign,
    "X-MJ-TemplateLanguage": _IF_ON,
    "X-MJ-Vars": foreign,
    "X-MJ-TemplateErrorReporting": nothing,
    "X-MJ-TemplateErrorDeliver": nothing,
    "X-MJ-MonitoringCategory": nothing,
}

_MANDRILL: dict[str, Reader] = {
    "X-MC-Track": listed(
        {
            "opens": Said(opens=True),
            "clicks": Said(clicks="html+text"),
            "clicks_all": Said(clicks="html+text"),
            "clicks_htmlonly": Said(clicks="html"),
            "clicks_textonly": Said(clicks="off"),
            **dict.fromkeys(("none", "no", "off", "false"), _NONE),
        }
    ),
    "X-MC-Tags": sayings.tags,
    "X-MC-Metadata": sayings.data_object,
    "X-MC-Template": foreign,
    "X-MC-MergeVars": foreign,
    "X-MC-MergeLanguage": nothing,  # means something beside merge variables only
    "X-MC-SendAt": foreign,
    "X-MC-BccAddress": foreign,
    "X-MC-PreserveRecipients": switch(yes=Said(), no=Said(apart=True)),
    "X-MC-Autotext": nothing,
    "X-MC-AutoHtml": nothing,
    "X-MC-InlineCSS": nothing,
    "X-MC-GoogleAnalytics": nothing,
    "X-MC-GoogleAnalyticsCampaign": nothing,
    "X-MC-URLStripQS": nothing,
    "X-MC-TrackingDomain": nothing,
    "X-MC-SigningDomain": nothing,
    "X-MC-ReturnPathDomain": nothing,
    "X-MC-Subaccount": nothing,
    "X-MC-ViewContentLink": nothing,
    "X-MC-Important": nothing,
    "X-MC-IpPool": nothing,
}

_SES: dict[str, Reader] = {
    "X-SES-Configuration-Set": nothing,
    "X-SES-Message-Tags": sayings.data_pairs,
    "X-SES-List-Management-Options": foreign,  # keeps mail from those who left that list
    "X-SES-Source-ARN": nothing,
    "X-SES-From-ARN": nothing,
    "X-SES-Return-Path-ARN": nothing,
    "X-SES-Tenant": nothing,
}

_BREVO: dict[str, Reader] = {
    "X-Mailin-Tag": sayings.tag,
    "X-Mailin-Custom": sayings.data("custom"),
    "X-Sib-Sandbox": words({"drop": Said(test=True)}, other=UNCLEAR),
}

_OTHERS: dict[str, Reader] = {"X-SMTPAPI": sayings.smtpapi, "X-MSYS-API": sayings.msys}


@dataclass(frozen=True, slots=True)
class Switch:
    """A field: its name as published, and what reads its value."""

    name: bytes
    read: Reader
    ours: bool = False


def _table(*services: Mapping[str, Reader]) -> dict[bytes, Switch]:
    named = [(name.encode(), read, service is _OURS) for service in services for name, read in service.items()]
    return {name.lower(): Switch(name, read, ours) for name, read, ours in named}


PREFIX = b"x-"
"""What all of them begin with."""

SWITCHES = _table(_OURS, _MAILJET, _MAILGUN, _POSTMARK, _MANDRILL, _BREVO, _SES, _OTHERS)
"""By name in lower case. Of two campaigns that of the earlier field here counts."""

CAMPAIGN_FIELDS = frozenset(
    {
        b"x-mailgun-campaign-id",
        b"x-mailgun-tag",
        b"x-mailin-tag",
        b"x-mailjet-campaign",
        b"x-mailjet-deduplicatecampaign",
        b"x-mc-tags",
        b"x-pm-tag",
        b"x-postmeter-campaign",
        b"x-postmeter-tag",
        b"x-ses-configuration-set",
        b"x-ses-message-tags",
    }
)
"""Those of them that newsletters have."""


def find(key: bytes) -> Switch | None:
    """The field of that name in lower case, if it is one of these."""
    known = SWITCHES.get(key)
    if known is None and key.startswith(_POSTMARK_DATA):
        return Switch(key, sayings.data(key.removeprefix(_POSTMARK_DATA).decode("ascii", "replace")))
    return known
