-- Two From fields, two addresses, none: it leaves unsigned, and `dkim_unsigned_total` says why: t-verify-double-from.
dofile(here .. "/session.lua")
local link = open("ORIGINATING")
for _, from in ipairs({ { SENDER, "eve@example.org" }, SENDER .. ", bob@example.com", {}, "Alice" }) do
    expect("the verdict", send(link, from, SENDER), SMFIR_ACCEPT)
    unsigned(link)
end
mt.disconnect(link)
