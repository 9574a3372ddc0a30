-- Two keys make two signatures, RSA on top: t-sign-rs-multiple.
dofile(here .. "/session.lua")
local link = open("ORIGINATING")
expect("the verdict", send(link, "bob@two.example", SENDER), SMFIR_ACCEPT)
signature(link, 0, { a = "rsa-sha256", d = "two.example", s = "r", bh = BODY_HASH })
signature(link, 1, { a = "ed25519-sha256", d = "two.example", s = "e", bh = BODY_HASH })
if mt.getheader(link, "DKIM-Signature", 2) ~= nil then
    fail("a third signature")
end
mt.disconnect(link)
