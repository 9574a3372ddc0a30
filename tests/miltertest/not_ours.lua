-- Mail that is not ours is let go at MAIL, whatever From it bears: t-dontsign, t-peer. `client` is where it comes from.
dofile(here .. "/session.lua")
local link = open(nil, client)
expect("the reply to MAIL", envelope(link, nil), SMFIR_ACCEPT)
mt.disconnect(link)
