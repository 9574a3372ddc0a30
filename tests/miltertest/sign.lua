-- One message of ours is signed in the form that is configured: t-sign-rs, t-sign-ss, t-sign-ss-all. `form` is c=.
dofile(here .. "/session.lua")
local link = open("ORIGINATING")
expect("the verdict", send(link, nil, SENDER), SMFIR_ACCEPT)
if not mt.eom_check(link, MT_HDRINSERT, "DKIM-Signature") then
    fail("no field was inserted")
end
local plain = signature(link, 0, {
    v = "1", a = "rsa-sha256", c = form, d = "example.com", s = "test", bh = BODY_HASH, l = false, i = false, x = false,
})
-- OpenDKIM's scripts want these three, in this order; ours oversigns what others could add.
local listed = string.lower(tag(plain, "h"))
for _, name in ipairs({ "from:from", "date:date", "subject:subject", "reply%-to", "to", "cc" }) do
    if not string.find(":" .. listed .. ":", ":" .. name .. ":") then
        fail(name .. " is not in h=" .. listed)
    end
end
mt.disconnect(link)
