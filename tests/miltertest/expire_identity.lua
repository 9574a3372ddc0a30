-- x= as long after t= as configured, i= of the login: t-sign-ss-x, and i= of t-sign-rs-tables-token.
dofile(here .. "/session.lua")
local link = open("ORIGINATING")
expect("the verdict", send(link, nil, SENDER), SMFIR_ACCEPT)
local plain = signature(link, 0, { d = "example.com", i = SENDER })
expect("x= after t=", tag(plain, "x") - tag(plain, "t"), 30 * 86400)
-- RFC 6376 section 3.5: i= must lie in d= or below; the login of another domain is left out.
expect("the verdict", send(link, "bob@other.example", SENDER), SMFIR_ACCEPT)
signature(link, 0, { d = "other.example", i = false })
mt.disconnect(link)
