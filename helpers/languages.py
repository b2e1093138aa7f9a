"""Languages: the words and number marks of every sentence; the one place to add another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Language:
    """How one language says what users read.

    Pairs hold the form for one and the form for any other number. The sentences' fields are
    ``quantity`` (an amount with its unit), ``period``, ``named`` (the policy in brackets, or
    nothing), ``policy``, ``percent``, ``left``, ``used``, ``at``, ``within`` and ``reset``.
    """

    thousands: str
    decimal: str
    money: str  # how an amount of dollars is written
    units: Mapping[str, tuple[str, str]]
    on_model: str
    periods: Mapping[str, str]
    rolling: Mapping[str, tuple[str, str]]  # of the period's unit: minute, hour, day
    durations: tuple[str, str, str, str]  # days, hours, minutes, seconds
    named: str
    dated: str  # a time and its date
    used_up: str
    pool_used_up: tuple[str, str]
    held: str
    nothing: str
    nothing_paid: str
    resets: tuple[str, str]
    opens: str
    warning: str
    pool_warning: str
    until: str
    status: str
    reached: str
    status_reset: str
    cap: tuple[str, str]
    ledger_error: str
    weekdays: tuple[str, ...] = ()  # Monday first; none where dates are written in numbers
    months: tuple[str, ...] = ()


ENGLISH = Language(
    thousands=",",
    decimal=".",
    money="${amount}",
    units={
        "tokens": ("token", "tokens"),
        "input_tokens": ("input token", "input tokens"),
        "output_tokens": ("output token", "output tokens"),
        "requests": ("request", "requests"),
    },
    on_model="{quantity} on {model}",
    periods={
        "minute": "this minute's",
        "hour": "this hour's",
        "day": "today's",
        "week": "this week's",
        "month": "this month's",
    },
    rolling={
        "minute": ("the last minute's", "the last {count} minutes'"),
        "hour": ("the last hour's", "the last {count} hours'"),
        "day": ("the last day's", "the last {count} days'"),
    },
    durations=("d", "h", "min", "s"),
    named=" ({policy})",
    dated="{time} on {weekday}, {day} {month}",
    used_up="You have used all of {period} {quantity}{named}. {reset}",
    pool_used_up=(
        "All of {period} {quantity} shared by {policy} is used. {reset}",
        "All of {period} {quantity} shared by {policy} are used. {reset}",
    ),
    held="The rest of {period} {quantity}{named} is held by replies that are still running. "
    "Please try again when they are done.",
    nothing="No {unit} may be used here{named}.",
    nothing_paid="No models that cost money may be used here{named}.",
    resets=("It resets at {at}, in {within}.", "They reset at {at}, in {within}."),
    opens="You can go on at {at}, in {within}.",
    warning="{percent} % of {period} {quantity} used; {left} left{until}.",
    pool_warning="{percent} % of {period} {quantity} shared by {policy} used; {left} left{until}.",
    until=" until {at}",
    status="Usage: {used} of {period} {quantity} ({percent} %)",
    reached="Limit reached: {used} of {period} {quantity}",
    status_reset=", reset at {at}",
    cap=(
        "This reply can have {count} token at most.",
        "This reply can have {count} tokens at most.",
    ),
    ledger_error="Usage can't be recorded at the moment, so no requests are accepted. "
    "Please try again later.",
    weekdays=("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    months=(
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
)

GERMAN = Language(
    thousands=".",
    decimal=",",
    money="{amount} $",
    units={
        "tokens": ("Token", "Tokens"),
        "input_tokens": ("Eingabe-Token", "Eingabe-Tokens"),
        "output_tokens": ("Ausgabe-Token", "Ausgabe-Tokens"),
        "requests": ("Anfrage", "Anfragen"),
    },
    on_model="{quantity} mit {model}",
    periods={
        "minute": "pro Minute",
        "hour": "pro Stunde",
        "day": "pro Tag",
        "week": "pro Woche",
        "month": "pro Monat",
    },
    rolling={
        "minute": ("in einer Minute", "in {count} Minuten"),
        "hour": ("in einer Stunde", "in {count} Stunden"),
        "day": ("in einem Tag", "in {count} Tagen"),
    },
    durations=("Tg.", "Std.", "Min.", "Sek."),
    named=" ({policy})",
    dated="{time} am {day}.{month}.",
    used_up="Ihr Limit von {quantity} {period}{named} ist erreicht. {reset}",
    pool_used_up=("Das gemeinsame Limit von {quantity} {period} ({policy}) ist erreicht. {reset}",)
    * 2,
    held="Der Rest Ihres Limits von {quantity} {period}{named} ist für laufende Antworten "
    "vorgemerkt. Bitte versuchen Sie es nach deren Ende noch einmal.",
    nothing="Hier sind keine {unit} erlaubt{named}.",
    nothing_paid="Kostenpflichtige Modelle sind hier nicht erlaubt{named}.",
    resets=("Wieder verfügbar um {at}, in {within}",) * 2,
    opens="Wieder verfügbar um {at}, in {within}",
    warning="{percent} % Ihres Limits von {quantity} {period} verbraucht; noch {left}{until}.",
    pool_warning="{percent} % des gemeinsamen Limits von {quantity} {period} ({policy}) "
    "verbraucht; noch {left}{until}.",
    until=" bis {at}",
    status="Verbrauch: {used} von {quantity} {period} ({percent} %)",
    reached="Limit erreicht: {used} von {quantity} {period}",
    status_reset=", neu ab {at}",
    cap=(
        "Diese Antwort kann höchstens {count} Token lang sein.",
        "Diese Antwort kann höchstens {count} Tokens lang sein.",
    ),
    ledger_error="Der Verbrauch kann gerade nicht erfasst werden, deshalb werden keine Anfragen "
    "angenommen. Bitte versuchen Sie es später noch einmal.",
)

FRENCH = Language(
    thousands="\u202f",
    decimal=",",
    money="{amount} $",
    units={
        "tokens": ("jeton", "jetons"),
        "input_tokens": ("jeton d’entrée", "jetons d’entrée"),
        "output_tokens": ("jeton de sortie", "jetons de sortie"),
        "requests": ("requête", "requêtes"),
    },
    on_model="{quantity} avec {model}",
    periods={
        "minute": "par minute",
        "hour": "par heure",
        "day": "par jour",
        "week": "par semaine",
        "month": "par mois",
    },
    rolling={
        "minute": ("par minute glissante", "en {count} minutes"),
        "hour": ("par heure glissante", "en {count} heures"),
        "day": ("par jour glissant", "en {count} jours"),
    },
    durations=("j", "h", "min", "s"),
    named=" ({policy})",
    dated="{time} le {day:02}/{month:02}",
    used_up="Votre limite de {quantity} {period}{named} est atteinte. {reset}",
    pool_used_up=("La limite commune de {quantity} {period} ({policy}) est atteinte. {reset}",) * 2,
    held="Le reste de votre limite de {quantity} {period}{named} est réservé à des réponses en "
    "cours. Réessayez quand elles seront terminées.",
    nothing="Aucune utilisation de {unit} n’est permise ici{named}.",
    nothing_paid="Les modèles payants ne sont pas permis ici{named}.",
    resets=("De nouveau disponible à {at}, dans {within}.",) * 2,
    opens="De nouveau disponible à {at}, dans {within}.",
    warning="{percent} % de votre limite de {quantity} {period} utilisés ; reste {left}{until}.",
    pool_warning="{percent} % de la limite commune de {quantity} {period} ({policy}) utilisés ; "
    "reste {left}{until}.",
    until=" jusqu’à {at}",
    status="Utilisation : {used} sur {quantity} {period} ({percent} %)",
    reached="Limite atteinte : {used} sur {quantity} {period}",
    status_reset=", remise à zéro à {at}",
    cap=(
        "Cette réponse peut compter au plus {count} jeton.",
        "Cette réponse peut compter au plus {count} jetons.",
    ),
    ledger_error="L’utilisation ne peut pas être enregistrée en ce moment : aucune requête n’est "
    "acceptée. Réessayez plus tard.",
)

SPANISH = Language(
    thousands=".",
    decimal=",",
    money="{amount} $",
    units={
        "tokens": ("token", "tokens"),
        "input_tokens": ("token de entrada", "tokens de entrada"),
        "output_tokens": ("token de salida", "tokens de salida"),
        "requests": ("solicitud", "solicitudes"),
    },
    on_model="{quantity} con {model}",
    periods={
        "minute": "por minuto",
        "hour": "por hora",
        "day": "por día",
        "week": "por semana",
        "month": "por mes",
    },
    rolling={
        "minute": ("en un minuto", "en {count} minutos"),
        "hour": ("en una hora", "en {count} horas"),
        "day": ("en un día", "en {count} días"),
    },
    durations=("d", "h", "min", "s"),
    named=" ({policy})",
    dated="{time} del {day}/{month}",
    used_up="Ha alcanzado su límite de {quantity} {period}{named}. {reset}",
    pool_used_up=("Se ha alcanzado el límite común de {quantity} {period} ({policy}). {reset}",)
    * 2,
    held="El resto de su límite de {quantity} {period}{named} está reservado para respuestas en "
    "curso. Inténtelo de nuevo cuando terminen.",
    nothing="Aquí no se permiten {unit}{named}.",
    nothing_paid="Aquí no se permiten modelos de pago{named}.",
    resets=("Disponible de nuevo a las {at}, dentro de {within}.",) * 2,
    opens="Disponible de nuevo a las {at}, dentro de {within}.",
    warning="{percent} % de su límite de {quantity} {period} usado; quedan {left}{until}.",
    pool_warning="{percent} % del límite común de {quantity} {period} ({policy}) usado; quedan "
    "{left}{until}.",
    until=" hasta las {at}",
    status="Uso: {used} de {quantity} {period} ({percent} %)",
    reached="Límite alcanzado: {used} de {quantity} {period}",
    status_reset=", se restablece a las {at}",
    cap=(
        "Esta respuesta puede tener como máximo {count} token.",
        "Esta respuesta puede tener como máximo {count} tokens.",
    ),
    ledger_error="El uso no se puede registrar en este momento, por lo que no se aceptan "
    "solicitudes. Inténtelo más tarde.",
)

CHINESE = Language(
    thousands=",",
    decimal=".",
    money="${amount}",
    units={
        "tokens": ("个 token",) * 2,
        "input_tokens": ("个输入 token",) * 2,
        "output_tokens": ("个输出 token",) * 2,
        "requests": ("次请求",) * 2,
    },
    on_model="{quantity}（{model}）",
    periods={
        "minute": "每分钟",
        "hour": "每小时",
        "day": "每天",
        "week": "每周",
        "month": "每月",
    },
    rolling={
        "minute": ("每 1 分钟", "每 {count} 分钟"),
        "hour": ("每 1 小时", "每 {count} 小时"),
        "day": ("每 1 天", "每 {count} 天"),
    },
    durations=("天", "小时", "分钟", "秒"),
    named="（{policy}）",
    dated="{month}月{day}日 {time}",
    used_up="您的限额（{period} {quantity}）{named}已用完。{reset}",
    pool_used_up=("共享限额（{period} {quantity}，{policy}）已用完。{reset}",) * 2,
    held="您的限额（{period} {quantity}）{named}的剩余部分已被正在生成的回复占用，请稍后再试。",
    nothing="此处不允许使用{unit}{named}。",
    nothing_paid="此处不允许使用付费模型{named}。",
    resets=("将于 {at} 重置（{within}后）。",) * 2,
    opens="可于 {at} 继续使用（{within}后）。",
    warning="限额（{period} {quantity}）已使用 {percent}%，剩余 {left}{until}。",
    pool_warning="共享限额（{period} {quantity}，{policy}）已使用 {percent}%，剩余 {left}{until}。",
    until="，{at} 重置",
    status="用量：{period} {quantity}，已用 {used}（{percent}%）",
    reached="已达限额：{period} {quantity}，已用 {used}",
    status_reset="，{at} 重置",
    cap=("此回复最多 {count} 个 token。",) * 2,
    ledger_error="目前无法记录用量，因此暂不接受请求。请稍后再试。",
)

LANGUAGES: Mapping[str, Language] = {
    "en": ENGLISH,
    "de": GERMAN,
    "fr": FRENCH,
    "es": SPANISH,
    "zh": CHINESE,
}


def choose_language(tag: str) -> Language:
    """The language for a tag such as ``de-AT``; English where there is none."""
    tag = tag.lower().replace("_", "-")
    if tag.startswith(("zh-tw", "zh-hk", "zh-hant")):
        return ENGLISH  # Simplified Chinese is not what they read
    return LANGUAGES.get(tag.split("-")[0], ENGLISH)
