-- {daemon_name} makes mail ours when it has a configured value: t-sign-ss-macro, -macro-value.
dofile(here .. "/session.lua")
local link = open("ORIGINATING")
expect("the verdict", send(link, nil, nil), SMFIR_ACCEPT)
signature(link, 0, { d = "example.com", bh = BODY_HASH })
mt.disconnect(link)
for _, daemon in ipairs({ "smtpd", "originating", "" }) do
    link = open(daemon)
    expect("the reply to MAIL under " .. daemon, envelope(link, nil), SMFIR_ACCEPT)
    mt.disconnect(link)
end
-- A login makes it ours under any name.
link = open("smtpd")
expect("the verdict", send(link, nil, SENDER), SMFIR_ACCEPT)
signature(link, 0, { d = "example.com" })
mt.disconnect(link)
