"""The words of mail systems, in the tongues they speak, as patterns: what tells a bounce, a delay, an automatic answer.

Every pattern is linear in what it reads: what repeats is bounded. Knows nothing of messages; mail.said has the words
that stand for a status.
"""

from __future__ import annotations

import re

SYSTEM = re.compile(
    r"mailer[-_. ]?daemon|po+st[-_e]?master|mail[-_. ]?(?:delivery|daemon|system|administrator|router|server)"
    r"|delivery[-_. ](?:system|subsystem|service|notif)|system administrator|mailsystem|maildelivery|antivirus"
    r"|virus ?wall|<>|^null$|undeliver|double-bounce|internet mail|listserv|\bmdaemon@"
    r"|inetgw|mailgate|^mail@",
    re.IGNORECASE,
)
"""In the From field or the return path of a mail system."""
DAEMON = re.compile(
    r"mailer[-_. ]?daemon|mail delivery (?:sub)?system",
    re.IGNORECASE,
)
"""Of these nobody can doubt it."""
SUBJECT = re.compile(
    r"undeliver|non[- ]?deliver|not (?:be )?deliver"
    r"|deliver\w{0,20} (?:\w{1,20} )?(?:has )?(?:fail|problem|error|status|notif|report)"
    r"|fail\w{0,20} (?:\w{1,20} )?(?:deliver|notice|mail|message)|mail (?:delivery )?(?:system )?(?:fail|error)"
    r"|returned (?:e?mail|message)|return(?:ing|ed) to sender"
    r"|(?:could not|can ?not|unable to|couldn't|was not|wasn't|can't) (?:be )?(?:sen[dt]|deliver)"
    r"|message (?:you sent )?(?:rejected|blocked|refused|failed|status)|nondeliverable|unzustellbar"
    r"|nicht zugestellt|unbestellbar|non remis|non livr|no (?:se )?(?:pudo|puede entreg|entreg)|devuelto"
    r"|mancato recapito|не доставлено|недоставленн|onbestelbaar|niedostarczon|falha na entrega"
    r"|失败|退信|失敗|无法|未能|エラー|failure notice|processing error"
    r"|error (?:sending|message|condition)|warning: message|user unknown|automatically rejected"
    r"|zustell\w{0,20}(?: \w{1,20}){0,4}? fehlgeschlagen|niet te bezorgen|bezorging (?:is )?mislukt"
    r"|(?:kunde|kunne|kan) (?:inte|ikke) lever|olevererbar|ei (?:voi|voida|voitu) toimittaa|ej levererat"
    r"|[eé]chec de (?:la )?(?:remise|distribution)|n[aã]o (?:foi |é poss[ií]vel )?entreg|recapitabil|recapitare"
    r"|niedostarcz|nedoru[cč]|nepoda[rř]ilo se doru[cč]|k[eé]zbes[ií]thetetlen|nelivr|teslim edil\w{0,3}m"
    r"|недоставлен|не (?:удалось|удается|вдалося) достав|παραδόθηκε|ανεπίδοτ|לא ניתן למסירה|تعذر (?:ال)?تسليم"
    r"|반송|배달되지|배달하지 못|발송 ?실패|전송되지 못|配信不能|送信できません|届きません|未送达|未傳遞|無法",
    re.IGNORECASE,
)
"""In the subject of a bounce."""
FAILED = re.compile(
    r"(?:could ?not|couldn'?t|can ?not|can'?t|unable to|was(?:n'?t| not)(?: able to)?|were (?:not|unable)"
    r"|not able to|has not been|have not been|not been|failed to|not)(?: yet)?(?: \w{1,20}){0,3}? (?:deliver"
    r"|sen[dt]|reach|accept|forward|relay|process)"
    r"|deliver\w{0,20}(?: \w{1,20}){0,12}? (?:failed|failure|error|problem|impossible)|undeliver\w{0,20}"
    r"|fail\w{0,20}(?: \w{1,20}){0,3}? deliver|did not reach|did not receive|not delivered|postponed"
    r"|could not be reached|permanent (?:fatal )?error|delivery (?:errors?|problems?)"
    r"|has been (?:rejected|returned|refused)|was (?:rejected|refused|returned|blocked|bounced)"
    r"|returned (?:to sender|mail)|no valid recipients|unknown (?:user|recipient)|user unknown"
    r"|failed (?:addresses|recipients|because|for the)|requested action not taken|failure reasons"
    r"|invalid address|fatal errors|transcript of session"
    r"|bounced|not (?:exactly )?match an|encountered an error"
    r"|送信できません|配信|无法|失败|無法|доставлен|не может быть"
    r"|nicht (?:zugestellt|zustellbar)|zustellung fehlgeschlagen|niet (?:worden )?(?:bezorgd|afgeleverd)"
    r"|no (?:se )?(?:ha |han |pudo |puede |pudieron )(?:podido |ser |sido )?entrega"
    r"|não (?:pôde|pode|foi|foram) (?:ser )?entregue|falha na entrega"
    r"|pas (?:pu )?(?:être|été) (?:remis|délivré|distribué)|non (?:è stato|può essere) (?:consegnat|recapitat)"
    r"|nie (?:została|mogła) (?:być )?dostarczon|kunde inte levereras",
    re.IGNORECASE,
)
"""In the text of one."""
DELAYED = re.compile(
    r"\bdelayed\b|\bdelay\b|\bpostponed\b|delivery warning|still being retried"
    r"|will (?:continue to|keep|be re)\s?(?:try|attempt|retr)\w{0,20}|will be retried|will retry"
    r"|not yet (?:been )?delivered|no action is required"
    r"|(?:do|need) not (?:need to )?(?:resend|re-send|do anything)|no need to resend|continue trying"
    r"|has not been collected yet|temporar(?:y|ily) (?:delivery )?(?:delay|problem)|warning message only"
    r"|delivery (?:attempts )?will (?:be )?continue|queued for later",
    re.IGNORECASE,
)
"""Of a notice that delivery goes on."""
FINAL = re.compile(
    r"permanent(?:ly)?|giv(?:ing|en) up|not going to try again|no further (?:delivery )?attempt"
    r"|has been (?:returned|removed)|fatal error|will be deleted from",
    re.IGNORECASE,
)
"""Of one that it does not, whatever else it says."""
SPOKEN_OF = re.compile(
    r"(?:rcpt to|recipient\w{0,20}|destinat[aá]ri[oa]s?|destinataires?|empf(?:ä|ae)nger|ontvanger|mottagare|modtager"
    r"|alıcı|odbiorca|p[rř][ií]jemce|c[ií]mzett|получател\w|收件人|收件者|宛先|받는 ?사람|수신자?"
    r"|users?|address\w{0,20}(?: to)?|generated from|mailbox|account|message to|mail to"
    r"|sent? to|deliver\w{0,20}(?: \w{1,20}){0,6} to|reach|e-?mail)"
    r"(?:\s+was)?[\s:：<\"'=(（>*\[]{1,12}(?:(?:smtp|rfc822)[:;=]\s?)?$",
    re.IGNORECASE,
)
"""Before an address that a bounce is about."""
ASIDE = re.compile(
    r"\b(?:contact|reply[- ]to|mail from|(?<!generated )from|sender|cc|write to|help|envelope-from|questions?|support"
    r"|by|visit|forward\w{0,20}|report\w{0,20}|expanded from|on behalf of|message-id|assistance|complaints?)"
    r"[^\n@]{0,30}$"
    r"|mailto:$|://\S{0,200}$",
    re.IGNORECASE,
)
"""Before an address that it only mentions."""
ANSWER = re.compile(
    r"\s*(?:(?:re|aw|sv|fwd?|\[[^\]]{0,40}\])\s*:?\s*)?(?:auto(?:matic|mated|matisch\w{0,20}|m[aá]tic\w{0,20}"
    r"|matique)?[\s:_-]{0,3}(?:re(?:ply|sponse|sponder)|answer|antwort|r[eé]ponse|respuesta|risposta|resposta"
    r"|svar)|out[\s-]of[\s-](?:the[\s-])?office|vacation|(?:i am |i'm )?away from|on (?:vacation|holiday|leave)"
    r"|abwesen\w{1,20}|r[eé]ponse automatique|absence|absent|fuera de (?:la )?oficina|respuesta autom"
    r"|fuori (?:sede|ufficio)|risposta automatica|resposta autom|afwezig\w{0,20}|automatisch antwoord"
    r"|automatisk|avtosvar|automaattinen vastaus|autoodpowied|odpowied[zź] automat|automatick[aá] odpov"
    r"|automatikus v[aá]lasz|r[aă]spuns automat|otomatik yan[ıi]t|автоответ|автоматический ответ|автоматична відповідь"
    r"|αυτόματη απάντηση|fr[aå]nvaro|frånvarande|fravær|poissa|ofis dışı|nieobecn|poza biurem|вне офиса"
    r"|нет на рабочем месте|εκτός γραφείου|ausente|aus[eê]ncia|fora do escrit|assente|h[aá]zon k[ií]v[uü]l"
    r"|(?:v )?nep[rř][ií]tomn|nicht im b(?:ü|ue)ro|je suis absent|不在|부재)"
    r"|.{0,80}(?:out of (?:the )?office|auto-?reply|autoresponder|自動返信|自動応答|自動回覆|自动回复|自动答复"
    r"|자동 ?(?:회신|응답))",
    re.IGNORECASE,
)
"""In the subject of an automatic answer, from its start."""
REPLY = re.compile(r"\s{0,5}(?:re|aw|sv|antw|rif|odp)\s?:", re.IGNORECASE)
"""At the start of a person's answer."""
FORWARDED = re.compile(r"\s{0,5}(?:fwd?|wg|tr|rv|enc|doorst|vs|vb|转发|轉寄)\s?[:：]", re.IGNORECASE)
"""At the start of what a person passes on."""
CHALLENGE = re.compile(
    r"(?:please )?(?:confirm|verify) (?:your|that you)[^.]{0,40}(?:message|e?mail|human|sen[dt])"
    r"|challenge[ /-]response|confirmation (?:required|needed)[^.]{0,40}(?:message|mail)|spamarrest|boxbe"
    r"|requires? (?:sender )?verification|(?:sender|message) verification|approve (?:this )?sender",
    re.IGNORECASE,
)
"""Of mail that asks the sender to show that he is a person."""
