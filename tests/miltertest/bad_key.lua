-- A key that is held and cannot be used: the client shall come again, nothing leaves unsigned: t-sign-rs-tables-bad.
dofile(here .. "/session.lua")
local link = open("ORIGINATING")
expect("the verdict", send(link, "bob@gone.example", SENDER), SMFIR_REPLYCODE)
if not mt.eom_check(link, MT_SMTPREPLY, "451", "4.7.5", "cannot sign mail from gone.example now, try again later") then
    fail("not the reply that was expected")
end
unsigned(link)
-- The session goes on, and others are signed.
expect("the verdict", send(link, nil, SENDER), SMFIR_ACCEPT)
signature(link, 0, { d = "example.com" })
mt.disconnect(link)
