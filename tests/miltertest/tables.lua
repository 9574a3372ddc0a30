-- Each From domain by its own key, and a domain below one that says so by the key above: t-sign-rs-tables and
-- -tables-token.
-- OpenDKIM's % takes the domain from the address; subdomains: true does, with d= of the entry.
dofile(here .. "/session.lua")
local link = open("ORIGINATING")
local cases = {
    { "bob@other.example", "other.example", "other" },
    { "Bob <bob@OTHER.example>", "other.example", "other" },
    { "news@mail.below.example", "below.example", "below" },
    { SENDER, "example.com", "test" },
}
for _, case in ipairs(cases) do
    expect("the verdict", send(link, case[1], SENDER), SMFIR_ACCEPT)
    signature(link, 0, { d = case[2], s = case[3], bh = BODY_HASH })
end
-- Nobody said that mail below other.example is other.example's; no table names stranger.example.
for _, from in ipairs({ "bob@mail.other.example", "eve@stranger.example" }) do
    expect("the verdict", send(link, from, SENDER), SMFIR_ACCEPT)
    unsigned(link)
end
mt.disconnect(link)
