"""What a server said, in numbers: reply code, enhanced status, and what its words mean where it gave neither.

The words are those that mail systems use, in any order of nouns and verbs; in doubt the meaning is the one that does
not tell that a person is gone (RFC 3463 section 3). Pure, linear. Knows nothing of reports or logs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from postmeter.mail.hardness import ADDRESS, HARD, hard, of_the_sender, statuses

_FAR = 4000  # characters that are looked at
_STATUS = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.]*\d)")
_REPLY = re.compile(r"(?:^|[\s:;(\"'<\[#=])([45][0-5]\d)(?=[\s,:;.)\]-]|$)")
_NOT_A_REPLY = re.compile(r"(?:port|line|size|after|for|of|limit)\s*$", re.IGNORECASE)
_NOT_SAID = re.compile(rf"{ADDRESS}|\(in reply to [^()]{{1,40}}\)")  # Postfix's own words
_ELSEWHERE = re.compile(  # what was refused was not the recipient
    r"(?:(?:in (?:reply|response) to|after|sending|to)\s+(?:the\s+|pipelined\s+)?|rejected command ')"
    r"(?:MAIL FROM|EHLO|HELO|LHLO|STARTTLS|AUTH"
    r"|initial connection)"
    r"|\[?MAIL_FROM\]?|Connected to \S{1,100} but (?:sender|greeting)",
    re.IGNORECASE,
)

_ASKED = "undeliverable address: "
_DATA = re.compile(
    r"(?:(?:in (?:reply|response) to|after|our)\s+(?:the\s+|pipelined\s+)?(?:end of |final |sending )?"
    r"|smtp command\s+|rejected command ')"
    r"\b(?:data|bdat)\b",
    re.IGNORECASE,
)
_OTHERS = (  # whatever is said to be unknown or invalid: it is the client, the sender or his right to write
    r"\b(?:helo|ehlo)\b|\bptr\b|\breverse (?:dns|name|lookup|address)|\baddress \[?\d{1,3}\.\d|\bip-adress"
    r"|\b(?:ip|clients?|servers?|host|tls|certificate|attachment|file|header|message)(?:'s)? (?:address|name)"
    r"|(?:adresse|direcci[oó]n|endere[cç]o|indirizzo) ip\b",
    r"\byour (?:e-?mail )?(?:address\b(?! book)|account|domain|server|host|client|name\b|ip\b)|\bin (?:the )?dns\b",
    r"\bpassword|authenticat(?:ed|ion)\b|\bpop[- ]before|permission denied"
    r"|\bno relay|of this relay|\brelaying\b|\bblocked\b",
    r"\b(?:from|return(?:[- ]path)?|envelope|bounce)[- ]address|\bcall-?(?:out|back)\b"
    r"|(?:unable to|could ?n[o']t|can ?not|can't|failed to) verify @"
    r"|\breverse[ -]path|\bno such sender|\bsender @|\bbackscatter|\bbatv\b"
    r"|\b(?:author|originator|submitter)\b|\bfrom:? (?:an? )?(?:unknown|non-?exist|invalid|user|mailbox)"
    r"|\bsender(?:'?s)? (?:e-?mail |envelope )?(?:address|domain|user|account|mailbox|host|is|was|has|not)\b",
    r"\bexp[eé]diteur|\bremitente|\bremetente|\bmittente|\babsender|\bafzender|\bnadawc|отправител|发件人"
    r"|avsändar|\bafsender|\bavsender|lähettäj|g[oö]nder(?:en|ici)|odes[ií]lat|\bfelad[oó]|\bexpeditor|αποστολ"
    r"|寄件[者人]|[发發]送[方者人]|送信[者元]|差出人|보낸 ?사람|발신[자인]|송신자",
    r"\bwhite-?list|\b(?:allowed|permitted) (?:list|\w{1,20} list)|list of (?:allowed|permitted)"
    r"|recipient'?s address book|\bcontacts\b|\bonly registered|\bsubscriber|\b(?:not a|non-?)\s?member"
    r"|(?<!mail )\blist address",
    r"\b(?:mailbox|account|recipient|user) (?:error|status|count|encoding|format|tag|agent)\b"
    r"|number of (?:user|recipient)|\bunknown (?:error|problem)|\b(?:server|database|ldap) is down"
    r"|\bharvest|\b(?:unknown|invalid|non-?exist\w{0,5}|bad) (?:users|recipients|addresses|mailboxes|accounts)\b"
    r"|\bunknown user errors|\b(?:user|recipient) (?:database|table|key) not found|home directory|mailing list member"
    r"|\bgr[ae]y-?list|\bheaders?\b|\bmail client\b",
)
_SAME = r"(?:[^.]|\.(?=\S))"  # within the sentence: a dot in a name does not end it
_WHO = (
    r"(?:users?|recipients?|mailbox(?:es)?|address(?:e[es])?|account|rcpt|alias|person|names?|addressee"
    r"|local[- ]part|user ?id)"
)
_BOX = r"(?:account|mailbox|user|address|recipient)"
_FARTHER = (  # Swedish, Danish, Norwegian; Finnish; Turkish; Czech; Hungarian; Romanian; Greek; Japanese; Korean
    r"\b(?:okänd|ukendt|ukjent) (?:mottag|modtag|mottak|använd|brug|bruk|adress)"
    r"|\b(?:mottag|modtag|mottak|använd|brug|bruk)(?:are|aren|er|eren)\b"
    rf"{_SAME}{{0,40}}?(?:finn?s inte|findes ikke|finnes ikke|e[kx]sisterer ikke|existerar inte)",
    r"tuntematon (?:vastaanottaja|käyttäjä|osoite)|(?:vastaanottajaa|käyttäjää) ei (?:löydy|ole olemassa)",
    rf"\b(?:kullan[ıi]c[ıi]|al[ıi]c[ıi])\b{_SAME}{{0,40}}?(?:bulunamad|mevcut de[gğ]il)"
    r"|b[oö]yle bir (?:kullan[ıi]c[ıi]|al[ıi]c[ıi]|adres|hesap) yok",
    r"\bnezn[aá]m\w{1,3} (?:u[zž]ivatel|p[rř][ií]jemce|adres)"
    rf"|\b(?:u[zž]ivatel|p[rř][ií]jemce|schr[aá]nka)\b{_SAME}{{0,40}}?(?:neexistuje|nenalezen|nebyl nalezen)",
    rf"\bismeretlen (?:c[ií]mzett|felhaszn)|\b(?:c[ií]mzett|felhasználó)\b{_SAME}{{0,40}}?nem (?:létezik|található)",
    rf"\b(?:utilizator|destinatar)(?:ul)?\b{_SAME}{{0,40}}?(?:necunoscut|inexistent|nu exist[aă])",
    r"άγνωστος (?:παραλήπτης|χρήστης)",
    r"宛先不明|(?:宛先|受信者|ユーザー?|メールボックス)[^。]{0,20}?(?:存在しま|存在しない|見つかりま)",
    r"(?:사용자|수신자|받는 ?사람|계정|메일함)[^.]{0,20}?(?:존재하지 ?않|찾을 수 없)"
    r"|(?:존재하지 않는|알 수 없는) (?:사용자|수신자|계정)",
)
_ABROAD = "|".join(  # French, Spanish, Portuguese, Italian; German, Dutch; Polish, Russian; Chinese
    [
        r"\b(?:utilisateur|destinataire|adresse|bo[iî]te|compte|usuario|destinatario|buz[oó]n|cuenta|direcci[oó]n"
        r"|casilla|usu[aá]rio|destinat[aá]rio|caixa|conta|endere[cç]o|utente|casella|indirizzo)\b"
        rf"{_SAME}{{0,60}}?(?:inconnu|inexist|n'existe (?:pas|plus)|inv[aá]lid|non? v[aá]lid|desconocid"
        r"|no existe|no encontrad|desconhecid"
        r"|n[aã]o (?:existe|encontrad)|sconosciut|inesist|non (?:esiste|trovat))",
        r"\b(?:benutzer|nutzer|empf(?:ä|ae?)nger|postfach|mailbox|adresse|konto|gebruiker|ontvanger|postvak|adres)\b"
        rf"{_SAME}{{0,60}}?(?:unbekannt|existiert nicht|nicht (?:gefunden|vorhanden|bekannt)|onbekend|bestaat niet)",
        r"\bunbekannte[rs]? (?:(?:be)?nutzer|empf|adress|postfach)|nie ma takie\w{1,3} (?:u[zż]ytkownik|adres|skrzynk)"
        r"|\bnieznan\w{1,3} (?:u[zż]ytkownik|odbiorca|adres)|\bonbekende? (?:gebruiker|ontvanger|adres)",
        r"\b(?:u[zż]ytkownik|odbiorca|skrzynka|adres|konto|пользовател\w|получател\w|адрес|ящик)\b"
        rf"{_SAME}{{0,60}}?(?:nieznan|nie istnieje|неизвест|не найден|не существует)",
        r"нет так\w{2,4} (?:пользовател|получател|адрес|ящик)|неизвестн\w{2,3} (?:пользовател|получател|адрес)",
        r"(?:用户|用戶|使用者|收件人|收件者|邮箱|郵箱|信箱|帐号|账号|帳號|地址|位址)\w{0,10}不存在"
        r"|[无無]此(?:用[户戶]|使用者|收件)",
        *_FARTHER,
    ]
)
_GONE = "|".join(
    [
        _ABROAD,
        r"(?:no such|no valid|unknown|invalid|non-?exist\w{0,20}|unrecogni[sz]ed|undefined|unroute?able)"
        rf"\W{{1,5}}(?:[\w.-]{{1,40}}\W{{1,5}}){{0,3}}?{_WHO}\b",
        rf"\b{_WHO}\b{_SAME}{{0,80}}?(?:\bunknown|not (?:be )?(?:found|known|exist\w{{0,20}}|recogni[sz]ed|listed"
        r"|valid|registered|match\w{0,20}|here\b|local\b|in )|no (?:exist|match)"
        r"|(?:does|do|did)(?:n'?t| not) (?:exist|match)|no longer (?:exist|valid|here|with|known|registered)"
        r"|is(?:n'?t| not) (?:a )?(?:valid|known|registered)|\binvalid|\bunroute?able)",
        r"no (?:mailbox|account|user) (?:here )?(?:by|with|of|under) that name|no (?:user|mailbox"
        r"|recipient)s? (?:here|found)",
        r"(?:does(?:n'?t| not) have|has no|have no) (?:an? )?(?:[\w.]{1,40} )?(?:account|mailbox)|not our customer",
        r"(?:unable to|could ?n(?:o|')t|can ?not|can't) (?:find|locate) (?:[\w'-]{1,30} ){0,2}?"
        r"(?:user|recipient|mailbox|account|person|addressee)\b",
        r"(?:do not|don't) have an? (?:user|mailbox)|\bnobody (?:here )?by that name|\bno one (?:here|at th)"
        r"|no existe (?:dicha|ese)|@\W{0,2} not found"
        r"|\bbad (?:destination mailbox|recipient|mailbox)(?: address)?\b|(?:address|mailbox) no longer accept"
        r"|not a (?:valid|known|registered)[^.\n]{0,20} (?:user|recipient|mailbox|address)"
        r"|unroute?able (?:mail )?address",
        rf"not listed in{_SAME}{{0,30}}(?:directory|address book)",
    ]
)
_MEANINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("5.7.1", (
        r"\bspam|\bblack ?list|\bblock ?list|\brbl\b|reputation|unsolicited|\bdmarc\b|\bspf\b|\bdkim\b|spamhaus"
        r"|\bvirus",
        *_OTHERS,
        r"unauthenticated (?:e?mail|sender)|message content rejected|content filter|\bpoor\b|bulk email filter",
        r"too many (?:invalid|unknown|bad|wrong|non-?exist\w{0,20})"
        r"|(?:accept|receive)\w{0,3} (?:any )?(?:e?mails?|messages?) (?:only )?from",
        rf"relay(?:ing)?(?: access)?{_SAME}{{0,20}}(?:denied|not (?:permitted|allowed)|prohibited)|unable to relay",
        r"(?:not|won'?t|can ?not|refuse to) relay|not permitted to relay|we don'?t relay",
    )),
    ("5.2.2", (
        rf"(?:mail ?box|inbox|account|folder|maildir|disk|mail ?drop){_SAME}{{0,40}}\bfull\b|full mail ?box"
        r"|over[\s-]?quota|(?:mail ?box|inbox|maildir)(?: (?:size|limit|has|would|storage|space)){0,3} exceed",
        rf"quota{_SAME}{{0,30}}(?:exceed|full|reach|over|violat)|exceed\w{{0,20}}{_SAME}{{0,40}}(?:quota"
        rf"|storage|mailbox size|disk)",
        r"\b(?:bo[iî]te|buz[oó]n|casilla|casella|caixa|postfach|postvak|skrzynka|ящик)\b"
        rf"{_SAME}{{0,40}}?\b(?:pleine?|llen[oa]|pien[ao]|chei[ao]|voll?|pe[lł]n[ay]|переполнен)\b"
        r"|\b(?:quota|cuota|cota|kotas[ıi])\b(?: \w{1,20}){0,3}? (?:d[eé]pass|excedid|superad|überschritten|a[sş][ıi]l)"
        r"|(?:邮箱|郵箱|信箱|空间|空間|容量|メールボックス|메일함)\w{0,10}(?:已[满滿]|不足|いっぱい|초과|가득)",
        rf"over (?:its|the|their|his)?{_SAME}{{0,20}}(?:quota|storage|disk)|out of (?:disk |storage )?(?:space"
        rf"|quota)",
        r"insufficient (?:disk|storage|system storage)|not enough (?:disk |storage |free )?space"
        r"|too many messages in",
    )),
    ("5.3.4", (
        rf"(?:message|mail|size|body|attachment){_SAME}{{0,60}}(?:too (?:big|large|long)|size limit)",
        rf"(?:message|mail|size|body|attachment){_SAME}{{0,60}}exceed\w{{0,20}}{_SAME}{{0,40}}(?:size|limit"
        rf"|maximum|length|fixed)",
        rf"(?:exceed\w{{0,20}}|larger than|over){_SAME}{{0,30}}(?:maximum|max|limit){_SAME}{{0,30}}size"
        r"|message size (?:limit )?exceeded",
    )),
    ("5.4.6", (
        r"too many hops|mail (?:is )?loop|loops? (?:back|detected)|hop count exceeded|routing loop"
        r"|mail forwarding loop",
    )),
    ("5.1.10", (
        r"null ?mx|\bnullmx\b|indicated no smtp service|does(?:n'?t| not) (?:receive|accept) (?:any )?e?mail",
    )),
    ("5.1.6", (
        rf"(?:user|recipient|mailbox|account|address|person|who){_SAME}{{0,30}}has moved|(?:mailbox"
        rf"|address) has changed",
        r"new address is|left (?:the|this|our) (?:company|organi[sz]ation)",
    )),
    ("5.1.2", (
        r"(?:host|domain|hostname|name service|system|dns|server|mx|nameserver)\b(?:[^.:]"
        r"|\.(?=\S)){0,60}(?:not found|unknown|not exist"
        r"|lookup failed|no (?:a|mx) record|nonexistent|(?:couldn't|can'?t|could not|cannot) be found|no answer)",
        r"(?:unknown|no such|bad|invalid|illegal) (?:host|domain|system)|host(?:name)? lookup"
        r"|couldn'?t find any host",
        r"(?:no|invalid) (?:dns )?mx (?:record|or)|name service error|unable to resolve|no route to domain"
        r"|unrouteable domain|nxdomain",
        r"\b(?<!dieser )(?<!der )(?<!deze )(?<!dans le )(?<!dans ce )(?<!en el )(?<!este )(?<!nel )(?<! no )(?<!в )"
        r"(?:domain|domaine|dom[ií]nio|dom[äæe]n[ea]?n?|domeniul?|домен\w{0,2})\b"
        rf"{_SAME}{{0,60}}?(?:inconnu|ine[xs]ist|n'existe|no existe|n[aã]o existe|non esiste|desconocid|desconhecid"
        r"|sconosciut|unbekannt|existiert nicht|nicht gefunden|onbekend|bestaat niet"
        r"|ok[aä]nd|ukendt|ukjent|finn?s inte|findes ikke|неизвест|не найден|не существует)"
        r"|(?:域名|ドメイン|도메인)\w{0,10}(?:不存在|存在し|존재하지)",
        r"dns error|no relevant answers|mail exchanger or ip address|no valid mx",
        r"name or service not known|nodename nor servname|no address associated with",  # getaddrinfo(3)
    )),
    ("5.2.1", (
        rf"{_BOX}{_SAME}{{0,60}}(?:\bdisabled|deactivated|has been closed|discontinued)"
        r"|deactivated (?:mail ?box|account|user)",
        rf"{_BOX}{_SAME}{{0,60}}no longer (?:active|in use|on|available)",
        rf"\b{_BOX} (?:(?:is|was|has been|permanently) ){{0,2}}(?:closed|deleted|removed|terminated|cancell?ed)\b",
    )),
    ("5.1.1", (_GONE,)),
    ("5.2.0", (
        rf"{_BOX}{_SAME}{{0,60}}(?:inactive|suspended|not active|locked|frozen|expired|unavailable"
        rf"|not available|not accepting)",
        r"not accepting (?:mail|messages)|temporarily disabled",
    )),
    ("5.7.1", (
        rf"(?:access|permission|authori[sz]ation){_SAME}{{0,20}}(?:denied|refused|required)"
        rf"|not (?:authori[sz]ed|permitted|allowed)",
        r"blocked|polic(?:y|ies)\b|\bdenied|prohibit|restricted|rejected for|refused by|banned|unacceptable",
        r"\bjunk\b|\brelaying\b|\brdns\b|reverse (?:dns|hostname)|\bptr record|\bfilter(?:ed)?\b",
    )),
    ("4.4.7", (
        r"too long|expired|maximum (?:delivery )?(?:time|attempts|retr\w{1,20})|retry (?:time(?:out)?|limit)"
        r"|timed out|time-?out",
        r"attempts|giving up|after \d+ (?:days|hours)|for \d+ (?:days|hours)|\d+ days",
    )),
    ("4.4.1", (
        rf"connect(?:ion)?{_SAME}{{0,40}}(?:refused|dropped|reset|closed|lost|failed)|no route to host"
        rf"|not responding",
        rf"(?:can'?t|could ?n[o']t|unable to|failed to|cannot){_SAME}{{0,20}}connect|establish an smtp connection",
        rf"(?:network|host){_SAME}{{0,20}}unreachable",
    )),
    ("5.3.0", (
        rf"(?:system|internal|server|local|configuration|processing){_SAME}{{0,20}}(?:error|failure|problem)"
        rf"|can ?not create",
    )),
)  # fmt: skip
"""What passes by itself and was given up is written with a 4 (RFC 3463 section 3.5)."""
_WORDS = [(status, re.compile("|".join(words), re.IGNORECASE)) for status, words in _MEANINGS]


@dataclass(frozen=True, slots=True)
class Said:
    """Empty where nothing was said."""

    status: str = ""
    reply: str = ""
    meant: str = ""
    """The status that the words amount to, where none is stated that tells more than its class."""

    def stated(self) -> str:
        """The status to show: as stated, else as meant, in the class of the reply; else that class alone."""
        if self.status:
            return self.status
        if self.meant:
            return f"4{self.meant[1:]}" if self.reply[:1] == "4" else self.meant
        return f"{self.reply[0]}.0.0" if self.reply else ""

    def __bool__(self) -> bool:
        return bool(self.status or self.reply or self.meant)


def said(words: str) -> Said:
    """What stands in these words. Of several statuses the first that tells more than success or failure."""
    near = words[:_FAR]
    stated = [found for found in statuses(near) if found[0] != "2"]
    status = most(stated)
    return Said(status, _reply(near), meaning(near) if vague(status) else "")


def meaning(words: str) -> str:
    """The enhanced status that the words amount to; empty where they say nothing that is known."""
    flat = _NOT_SAID.sub("@", " ".join(words[:_FAR].split()))
    return next((status for status, known in _WORDS if known.search(flat)), "")


def otherwise(words: str) -> bool:
    """Whether words that state no status mean something that is no fault of the address: sendmail puts its own 5.1.1
    over every 550 to RCPT, Postfix over whatever kept it from asking for the address (ADDRESS_VERIFICATION_README)."""
    told = words[:_FAR].partition(_ASKED)[2] or words[:_FAR]
    meant = "" if statuses(told) else meaning(told)
    return bool(meant) and meant not in HARD


def gone(status: str, words: str, *, at_rcpt: bool) -> bool:
    """Whether a server's last word, as Postfix logs it, is that nobody is there: by its status, or by what its words
    mean where it states none (Postfix has 5.0.0 then). `at_rcpt` as `hard` has it."""
    if not at_rcpt:
        return False
    told = words[:_FAR].partition(" said: ")[2] or words  # the host's name is not what it says
    meant = meaning(told) if vague(status) and not statuses(told) else status
    return hard(meant, told, at_rcpt=True) and not otherwise(told)


def plain(status: str) -> str:
    """The enhanced status in a Status field, which may hold a comment; empty where there is none."""
    found = _STATUS.search(status[:200])
    return ".".join(str(int(part)) for part in found[1].split(".")) if found else ""


def most(stated: list[str]) -> str:
    """Of several statuses the first that tells the detail, else the subject, else the class (RFC 3463 section 2)."""
    told = [status for status in stated if status]
    detailed = (status for status in told if not status.endswith(".0"))
    return next(detailed, "") or next((status for status in told if not vague(status)), told[0] if told else "")


def vague(status: str) -> bool:
    """Whether a status tells its class alone."""
    return not status or status.endswith(".0.0")


def of_the_data(words: str) -> bool:
    """Whether it was the answer to the message, not to its recipient: then only a stated status is of the address."""
    return bool(_DATA.search(words[:_FAR]))


def about_the_recipient(words: str) -> bool:
    """Whether it may have been the answer to RCPT, or to the message for this recipient (RFC 5321 section 3.3)."""
    near = words[:_FAR]
    return not (_ELSEWHERE.search(near) or of_the_sender(near))


def beside(words: str, address: str) -> str:
    """The lines that name an address, each with the one behind it unless that is another's."""
    pieces: list[str] = []
    at = words.find(address) if address else -1
    while at >= 0 and len(pieces) < 10:
        begin = max(words.rfind("\n", 0, at) + 1, at - 500)
        stop = words.find("\n", at)
        second = words.find("\n", stop + 1) if stop >= 0 else -1
        end = second if second >= 0 else len(words)
        behind = words[stop : min(end, stop + 500)] if stop >= 0 else ""
        end = stop if "@" in behind and address not in behind else end
        pieces.append(words[begin : min(end, begin + 1500)])
        at = words.find(address, end)
    return "\n".join(pieces)


def paragraph(words: str, address: str) -> str:
    """What is said behind an address, up to a blank line: to which command the answer was stands at its end."""
    at = words.find(address) if address else -1
    if at < 0:
        return ""
    return words[at : at + 1500].partition("\n\n")[0]


def _reply(words: str) -> str:
    for found in _REPLY.finditer(words):
        if not _NOT_A_REPLY.search(words[max(0, found.start() - 10) : found.start(1)]):
            return found[1]
    return ""
