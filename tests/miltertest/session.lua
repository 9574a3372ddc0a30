-- What the scripts beside this one share: a session with the milter at `socket`, one message, and what it may answer.
-- `socket` and `here` come from the command line of miltertest(8), which says nothing about a script that fails: so
-- fail() does. The milter declines DATA, and miltertest knows.

SENDER, BODY = "alice@example.com", "This is a test!\r\n"
-- SHA-256 of BODY, which every form leaves as it is.
BODY_HASH = "3VWGQGY+cSNYd1MGM+X6hRXU0stl8JCaQtl4mbX/j2I="

function fail(why)
    mt.echo(why)
    error(why)
end

function must(what, problem)
    if problem ~= nil then
        fail(what .. ": " .. problem)
    end
end

function expect(what, found, wanted)
    if found ~= wanted then
        fail(what .. " is " .. tostring(found) .. ", not " .. tostring(wanted))
    end
end

-- daemon: {daemon_name} of the connection, nil for none; client: its address.
function open(daemon, client)
    local link = mt.connect("unix:" .. socket, 10, 0.2)
    if link == nil then
        fail("nobody listens at " .. socket)
    end
    must("negotiation", mt.negotiate(link, nil, nil, nil))
    if daemon ~= nil then
        must("macro", mt.macro(link, SMFIC_CONNECT, "{daemon_name}", daemon))
    end
    must("connection", mt.conninfo(link, "client.example", client or "192.0.2.1"))
    return link
end

-- The header of a message: From, Date, Subject, or what `from` has instead of one From field.
function header(link, from)
    for _, value in ipairs(type(from) == "table" and from or { from or SENDER }) do
        must("From", mt.header(link, "From", value))
    end
    must("Date", mt.header(link, "Date", "Tue, 22 Dec 2009 13:04:12 -0800"))
    must("Subject", mt.header(link, "Subject", "Signing test"))
    must("end of header", mt.eoh(link))
end

function envelope(link, login)
    if login ~= nil then
        must("macros", mt.macro(link, SMFIC_MAIL, "{auth_authen}", login, "{auth_type}", "PLAIN"))
    end
    must("MAIL", mt.mailfrom(link, "<" .. SENDER .. ">"))
    return mt.getreply(link)
end

-- A message from MAIL to its end; the reply to its end. `chunks` is its body, in one piece or several.
function send(link, from, login, chunks)
    expect("the reply to MAIL", envelope(link, login), SMFIR_CONTINUE)
    must("RCPT", mt.rcptto(link, "<bob@example.net>"))
    SENT = from
    header(link, from)
    for _, chunk in ipairs(chunks or { BODY }) do
        must("body", mt.bodystring(link, chunk))
    end
    must("end of message", mt.eom(link))
    return mt.getreply(link)
end

-- The `nth` signature from the top, 0 being the one that was inserted last; white space is taken out.
-- `wanted` is what its tags must be, false for none.
function signature(link, nth, wanted)
    local value = mt.getheader(link, "DKIM-Signature", nth)
    if value == nil then
        fail("no DKIM-Signature " .. nth)
    end
    mt.echo("From:" .. (SENT or SENDER) .. "\nDKIM-Signature:" .. value .. "\n.")
    local plain = ";" .. string.gsub(value, "%s", "") .. ";"
    for tag, what in pairs(wanted) do
        local found = string.match(plain, ";" .. tag .. "=([^;]*);")
        expect(tag .. "=", found or false, what)
    end
    return plain
end

function tag(plain, name)
    return string.match(plain, ";" .. name .. "=([^;]*);")
end

function unsigned(link)
    if mt.eom_check(link, MT_HDRINSERT) or mt.eom_check(link, MT_HDRADD) or mt.eom_check(link, MT_HDRCHANGE) then
        fail("the message was changed")
    end
end
