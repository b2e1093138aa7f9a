"""Western languages: the words of English, German, French, Spanish, Italian, Portuguese, Dutch."""

from __future__ import annotations

from dataclasses import replace

from helpers.wording import BELOW_TWO_OR_OTHER, Language

ENGLISH = Language(
    tag="en",
    name="English",
    less_than="less than {amount}",
    units="token|tokens, input token|input tokens, output token|output tokens, "
    "request|requests, response|responses",
    periods="per minute, per hour, per day, per week, per month, per quarter, per year",
    rolling="per {n} {unit}",
    rolling_units="second|seconds, minute|minutes, hour|hours, day|days",
    months="January February March April May June July August September October November December",
    at="at {time}",
    tomorrow="tomorrow at {time}",
    on_date="on {date} at {time}",
    owner="your limit|the shared limit",
    on=" on {model}",
    reached="you've reached {owner} of {what}{named}.",
    held="responses that are still running hold the rest of {owner} of {what}{named}. "
    "Please try again when they are done.",
    stopped="the response was stopped at {owner} of {what}{named}.",
    no_model="You can't use {model} here{named}.",
    no_models="You can't use any models here{named}.",
    no_paid="You can't use models that cost money here{named}.",
    per_request="This request is too long: at most {quantity} per request{on}{named}.",
    at_once="You already have {quantity} running. Please try again when one is done.",
    resets="It resets {at}, in {within}.",
    opens="You can continue {at}, in {within}.",
    warning="{percent} of {owner} of {what}{named} used; {left}{until}.",
    left="{n} left",
    label="Usage|Shared usage",
    reached_label="Limit reached|Shared limit reached",
    status="{label}: {used} of {what}",
    status_reset=", resets {at}",
    cap="This response can have at most {quantity}.",
    ledger_error="Usage can't be recorded at the moment, so no requests are accepted. "
    "Please try again later.",
)

GERMAN = Language(
    tag="de",
    name="Deutsch",
    thousands=".",
    decimal=",",
    money="{amount}\u00a0$",
    less_than="weniger als {amount}",
    percent="{n}\u00a0%",
    units="Token, Eingabe-Token, Ausgabe-Token, Anfrage|Anfragen, Antwort|Antworten",
    periods="pro Minute, pro Stunde, pro Tag, pro Woche, pro Monat, pro Quartal, pro Jahr",
    rolling="innerhalb von {n} {unit}",
    rolling_units="Sekunde|Sekunden, Minute|Minuten, Stunde|Stunden, Tag|Tagen",
    durations="Tg. Std. Min. Sek.",
    clock="{clock} Uhr",
    date="{day}. {month}",
    months="Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    at="um {time}",
    tomorrow="morgen um {time}",
    on_date="am {date} um {time}",
    owner="Ihr Limit|das gemeinsame Limit",
    on=" für {model}",
    reached="{owner} von {what}{named} ist erreicht.",
    held="{owner} von {what}{named}: Der Rest ist für laufende Antworten vorgemerkt. "
    "Bitte versuchen Sie es nach deren Ende erneut.",
    stopped="die Antwort wurde beendet, denn {owner} von {what}{named} ist erreicht.",
    no_model="Sie können {model} hier nicht verwenden{named}.",
    no_models="Sie können hier keine Modelle verwenden{named}.",
    no_paid="Sie können hier keine kostenpflichtigen Modelle verwenden{named}.",
    per_request="Diese Anfrage ist zu lang: höchstens {quantity} pro Anfrage{on}{named}.",
    at_once="Es läuft bereits {quantity}. Bitte versuchen Sie es nach deren Ende erneut.|"
    "Es laufen bereits {quantity}. Bitte versuchen Sie es erneut, wenn eine beendet ist.",
    resets="Wieder verfügbar {at}, in {within}",
    opens="Weiter möglich {at}, in {within}",
    warning="{owner} von {what}{named} ist zu {percent} verbraucht; noch {left}{until}.",
    left="{n}",
    label="Nutzung|Gemeinsame Nutzung",
    reached_label="Limit erreicht|Gemeinsames Limit erreicht",
    status="{label}: {used} von {what}",
    status_reset=", wird {at} zurückgesetzt",
    cap="Diese Antwort kann höchstens {quantity} lang sein.",
    ledger_error="Die Nutzung kann gerade nicht erfasst werden, deshalb werden keine Anfragen "
    "angenommen. Bitte versuchen Sie es später erneut.",
)

FRENCH = Language(
    tag="fr",
    name="français",
    plural=BELOW_TWO_OR_OTHER,
    thousands="\u202f",
    decimal=",",
    money="{amount}\u00a0$",
    less_than="moins de {amount}",
    percent="{n}\u202f%",
    units="token|tokens, token d’entrée|tokens d’entrée, token de sortie|tokens de sortie, "
    "requête|requêtes, réponse|réponses",
    periods="par minute, par heure, par jour, par semaine, par mois, par trimestre, par an",
    rolling="sur {n} {unit}",
    rolling_units="seconde glissante|secondes glissantes, minute glissante|minutes glissantes, "
    "heure glissante|heures glissantes, jour glissant|jours glissants",
    durations="j h min s",
    first_day="1er",
    months="janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    at="à {time}",
    tomorrow="demain à {time}",
    on_date="le {date} à {time}",
    owner="votre limite|la limite commune",
    on=" avec {model}",
    reached="{owner} de {what}{named} est atteinte.",
    held="des réponses en cours occupent le reste de {owner} de {what}{named}. "
    "Veuillez réessayer quand elles seront terminées.",
    stopped="la réponse a été arrêtée\u00a0: {owner} de {what}{named} est atteinte.",
    no_model="Vous ne pouvez pas utiliser {model} ici{named}.",
    no_models="Vous ne pouvez utiliser aucun modèle ici{named}.",
    no_paid="Vous ne pouvez pas utiliser de modèles payants ici{named}.",
    per_request="Cette requête est trop longue\u00a0: au plus {quantity} par requête{on}{named}.",
    at_once="Vous avez déjà {quantity} en cours. Veuillez réessayer quand l’une sera terminée.",
    resets="Remise à zéro {at}, dans {within}.",
    opens="Vous pourrez continuer {at}, dans {within}.",
    warning="{owner} de {what}{named} est utilisée à {percent}\u202f; {left}{until}.",
    left="il reste {n}",
    label="Utilisation|Utilisation commune",
    reached_label="Limite atteinte|Limite commune atteinte",
    status="{label}\u00a0: {used} sur {what}",
    status_reset=", remise à zéro {at}",
    cap="Cette réponse peut compter au plus {quantity}.",
    ledger_error="L’utilisation ne peut pas être enregistrée pour le moment\u00a0: aucune requête "
    "n’est acceptée. Veuillez réessayer plus tard.",
)

CANADIAN_FRENCH = replace(
    FRENCH,
    tag="fr-CA",
    name="français (Canada)",
    percent="{n}\u00a0%",
    units="jeton|jetons, jeton d’entrée|jetons d’entrée, jeton de sortie|jetons de sortie, "
    "requête|requêtes, réponse|réponses",
    warning="{owner} de {what}{named} est utilisée à {percent}; {left}{until}.",
)

SPANISH = Language(
    tag="es",
    name="español",
    thousands="\u202f",
    decimal=",",
    grouped_from=10_000,
    money="{amount}\u00a0USD",
    less_than="menos de {amount}",
    percent="{n}\u00a0%",
    units="token|tokens, token de entrada|tokens de entrada, token de salida|tokens de salida, "
    "solicitud|solicitudes, respuesta|respuestas",
    periods="por minuto, por hora, por día, por semana, por mes, por trimestre, por año",
    rolling="por cada {n} {unit}",
    rolling_units="segundo|segundos, minuto|minutos, hora|horas, día|días",
    date="{day} de {month}",
    months="enero febrero marzo abril mayo junio "
    "julio agosto septiembre octubre noviembre diciembre",
    at="a las {time}",
    tomorrow="mañana a las {time}",
    on_date="el {date} a las {time}",
    hour_one=("a las ", "a la "),
    owner="tu límite|el límite compartido",
    on=" con {model}",
    reached="has alcanzado {owner} de {what}{named}.",
    held="las respuestas en curso ocupan el resto de {owner} de {what}{named}. "
    "Inténtalo de nuevo cuando terminen.",
    stopped="la respuesta se detuvo al alcanzar {owner} de {what}{named}.",
    no_model="No puedes usar {model} aquí{named}.",
    no_models="No puedes usar ningún modelo aquí{named}.",
    no_paid="No puedes usar modelos de pago aquí{named}.",
    per_request="Esta solicitud es demasiado larga: máximo {quantity} por solicitud{on}{named}.",
    at_once="Ya tienes {quantity} en curso. Inténtalo de nuevo cuando termine una.",
    resets="Se restablece {at}, dentro de {within}.",
    opens="Podrás continuar {at}, dentro de {within}.",
    warning="{owner} de {what}{named} está al {percent}; {left}{until}.",
    left="queda {n}|quedan {n}",
    label="Uso|Uso compartido",
    reached_label="Límite alcanzado|Límite compartido alcanzado",
    status="{label}: {used} de {what}",
    status_reset=", se restablece {at}",
    cap="Esta respuesta puede tener como máximo {quantity}.",
    ledger_error="El uso no se puede registrar en este momento, por lo que no se aceptan "
    "solicitudes. Inténtalo de nuevo más tarde.",
)
