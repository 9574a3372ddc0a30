-- A trusted network is no free ticket: what was written there is signed, what passes through is not: t-peer.
dofile(here .. "/session.lua")
local link = open(nil, "127.0.0.1")
expect("the verdict", send(link, nil, nil), SMFIR_ACCEPT)
signature(link, 0, { d = "example.com" })
mt.disconnect(link)
link = open(nil, "127.0.0.1")
expect("the reply to MAIL", envelope(link, nil), SMFIR_CONTINUE)
must("RCPT", mt.rcptto(link, "<bob@example.net>"))
local received = "from far.example by mx.example.com with ESMTP id 1; Tue, 1 Dec 2009 00:00:00 +0000"
must("Received", mt.header(link, "Received", received))
header(link)
expect("the reply to the end of its header", mt.getreply(link), SMFIR_ACCEPT)
mt.disconnect(link)
