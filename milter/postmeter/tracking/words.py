"""What our pages say, in the languages that we speak, and which of them a browser asks for (RFC 9110 section 12.5.4).

Knows no HTML. `{left}` is what a person leaves. A sentence is whole in each language: none is put together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

DEFAULT = "en"

_LONGEST = 400  # characters of a field that are looked at; real ones have some forty
_WEIGHT = re.compile(r"[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


@dataclass(frozen=True, slots=True)
class Words:
    """A page's heading, its sentences, and its button if it has one."""

    heading: str
    text: str
    more: str = ""
    button: str = ""


ASK: dict[str, Words] = {
    "en": Words(
        "Unsubscribe",
        "Would you like to stop receiving mail from {left}?",
        "Other messages, such as invoices or new passwords, are not affected.",
        "Unsubscribe",
    ),
    "de": Words(
        "Abmelden",
        "Möchten Sie keine E-Mails von {left} mehr erhalten?",
        "Andere Nachrichten, etwa Rechnungen oder neue Passwörter, sind davon nicht betroffen.",
        "Abmelden",
    ),
    "fr": Words(
        "Se désabonner",
        "Souhaitez-vous ne plus recevoir d’e-mails de {left}\u202f?",
        "Les autres messages, comme les factures ou les nouveaux mots de passe, ne sont pas concernés.",
        "Se désabonner",
    ),
    "es": Words(
        "Darse de baja",
        "¿Desea dejar de recibir correos de {left}?",
        "Los demás mensajes, como facturas o contraseñas nuevas, no se ven afectados.",
        "Darme de baja",
    ),
    "it": Words(
        "Annullare l’iscrizione",
        "Desidera non ricevere più e-mail da {left}?",
        "Gli altri messaggi, come fatture o nuove password, non sono interessati.",
        "Annulla l’iscrizione",
    ),
}

DONE: dict[str, Words] = {
    "en": Words(
        "You are unsubscribed",
        "You have unsubscribed from {left}.",
        "A message that is already on its way may still arrive.",
    ),
    "de": Words(
        "Sie sind abgemeldet",
        "Sie haben sich von {left} abgemeldet.",
        "Eine Nachricht, die schon unterwegs ist, kann noch ankommen.",
    ),
    "fr": Words(
        "Désabonnement enregistré",
        "Votre désabonnement de {left} est enregistré.",
        "Un message déjà en route peut encore arriver.",
    ),
    "es": Words(
        "Baja registrada",
        "Su baja de {left} ha quedado registrada.",
        "Es posible que aún llegue algún mensaje que ya está en camino.",
    ),
    "it": Words(
        "Iscrizione annullata",
        "La sua iscrizione a {left} è stata annullata.",
        "Un messaggio già in viaggio potrebbe ancora arrivare.",
    ),
}

AGAIN: dict[str, Words] = {
    "en": Words(
        "Please try again",
        "Your request could not be saved just now.",
        "Please try again in a few minutes.",
        "Try again",
    ),
    "de": Words(
        "Bitte versuchen Sie es noch einmal",
        "Ihre Abmeldung konnte gerade nicht gespeichert werden.",
        "Bitte versuchen Sie es in einigen Minuten noch einmal.",
        "Noch einmal versuchen",
    ),
    "fr": Words(
        "Veuillez réessayer",
        "Votre demande n’a pas pu être enregistrée.",
        "Veuillez réessayer dans quelques minutes.",
        "Réessayer",
    ),
    "es": Words(
        "Inténtelo de nuevo",
        "En este momento no se ha podido guardar su solicitud.",
        "Inténtelo de nuevo dentro de unos minutos.",
        "Intentar de nuevo",
    ),
    "it": Words(
        "Riprovi, per favore",
        "In questo momento non è stato possibile salvare la sua richiesta.",
        "Riprovi tra qualche minuto.",
        "Riprova",
    ),
}

NOT_FOUND: dict[str, Words] = {
    "en": Words(
        "Page not found",
        "This link is incomplete or no longer valid.",
        "Please check that you copied the whole address.",
    ),
    "de": Words(
        "Seite nicht gefunden",
        "Dieser Link ist unvollständig oder nicht mehr gültig.",
        "Bitte prüfen Sie, ob Sie die ganze Adresse kopiert haben.",
    ),
    "fr": Words(
        "Page introuvable",
        "Ce lien est incomplet ou n’est plus valable.",
        "Veuillez vérifier que vous avez copié l’adresse entière.",
    ),
    "es": Words(
        "Página no encontrada",
        "Este enlace está incompleto o ya no es válido.",
        "Compruebe que ha copiado la dirección completa.",
    ),
    "it": Words(
        "Pagina non trovata",
        "Questo link è incompleto o non è più valido.",
        "Verifichi di aver copiato l’indirizzo completo.",
    ),
}

GONE: dict[str, Words] = {
    "en": Words(
        "This link is blocked",
        "The operator of this mail service has blocked it, usually for your safety.",
    ),
    "de": Words(
        "Dieser Link ist gesperrt",
        "Der Betreiber dieses Maildienstes hat ihn gesperrt, meist zu Ihrem Schutz.",
    ),
    "fr": Words(
        "Ce lien est bloqué",
        "L’opérateur de ce service de messagerie l’a bloqué, le plus souvent pour votre sécurité.",
    ),
    "es": Words(
        "Este enlace está bloqueado",
        "El operador de este servicio de correo lo ha bloqueado, por lo general para su seguridad.",
    ),
    "it": Words(
        "Questo link è bloccato",
        "Il gestore di questo servizio di posta lo ha bloccato, di solito per la sua sicurezza.",
    ),
}

LANGUAGES = tuple(ASK)


@lru_cache(maxsize=1024)
def choose(accepted: str) -> str:
    """The language that Accept-Language wants most of those that we speak; of equals the first. Noise wants nothing."""
    best, chosen = 0.0, DEFAULT
    for item in accepted[:_LONGEST].split(","):
        tag, _, parameter = item.partition(";")
        weight = _WEIGHT.fullmatch(parameter.strip()) if parameter.strip() else None
        if parameter.strip() and not weight:
            continue
        language = tag.strip().partition("-")[0].lower().replace("*", DEFAULT)
        wanted = float(weight[1]) if weight else 1.0
        if language in LANGUAGES and wanted > best:
            best, chosen = wanted, language
    return chosen
