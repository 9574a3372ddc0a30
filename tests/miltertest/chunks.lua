-- A body that comes in pieces, a line end torn apart, is one body: libopendkim's t-test127 over the wire.
dofile(here .. "/session.lua")
local link = open("ORIGINATING")
expect("the verdict", send(link, nil, SENDER, { "This is", " a test!\r", "\n" }), SMFIR_ACCEPT)
signature(link, 0, { bh = BODY_HASH })
mt.disconnect(link)
