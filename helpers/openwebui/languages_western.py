"""Western languages: the words of English, German, French, Spanish, Italian, Portuguese, Dutch."""

from __future__ import annotations

from dataclasses import replace

from helpers.openwebui.wording import BELOW_TWO_OR_OTHER, Language

ENGLISH = Language(
    tag="en",
    name="English",
    less_than="less than {amount}",
    units="token|tokens, input token|input tokens, output token|output tokens, "
    "request|requests, response|responses",
    periods="per minute, per hour, per day, per week, per month, per quarter, per year, "
    "per request, at once",
    rolling="per {n} {unit}",
    rolling_units="second|seconds, minute|minutes, hour|hours, day|days",
    months="January February March April May June July August September October November December",
    at="at {time}",
    tomorrow="tomorrow at {time}",
    on_date="on {date} at {time}",
    owner="your limit|the shared limit",
    on=" on {model}",
    sources="in saved chats, in temporary chats, in channels, "
    "in automations, via the API, for tasks",
    reached="you've reached {owner} of {what}{named}.",
    held="running responses hold the rest of {owner} of {what}{named}. "
    "Please try again when they are done.",
    stopped="stopped at {owner} of {what}{named}.",
    no_model="You can't use {model} here{named}.",
    no_models="You can't use any models here{named}.",
    no_paid="You can't use models that cost money here{named}.",
    per_request="This request is too long: at most {quantity} per request{on}{named}.",
    at_once="You already have {quantity} running. Please try again when one is done.",
    resets="It resets {at}{within}.",
    opens="You can continue {at}{within}.",
    within=", in {within}",
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
    periods="pro Minute, pro Stunde, pro Tag, pro Woche, pro Monat, pro Quartal, pro Jahr, "
    "pro Anfrage, gleichzeitig",
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
    sources="in gespeicherten Chats, in temporären Chats, in Kanälen, "
    "in Automatisierungen, über die API, für Aufgaben",
    reached="{owner} von {what}{named} ist erreicht.",
    held="{owner} von {what}{named} ist für laufende Antworten vorgemerkt. "
    "Bitte gleich erneut versuchen.",
    stopped="beendet, denn {owner} von {what}{named} ist erreicht.",
    no_model="Sie können {model} hier nicht verwenden{named}.",
    no_models="Sie können hier keine Modelle verwenden{named}.",
    no_paid="Sie können hier keine kostenpflichtigen Modelle verwenden{named}.",
    per_request="Diese Anfrage ist zu lang: höchstens {quantity} pro Anfrage{on}{named}.",
    at_once="Es läuft bereits {quantity}. Bitte versuchen Sie es nach deren Ende erneut.|"
    "Es laufen bereits {quantity}. Bitte versuchen Sie es erneut, wenn eine beendet ist.",
    resets="Wieder verfügbar {at}{within}.",
    opens="Weiter {at}{within}.",
    within=", in {within}",
    warning="{owner} von {what}{named} ist zu {percent} verbraucht; noch {left}{until}.",
    left="{n}",
    label="Nutzung|Gemeinsame Nutzung",
    reached_label="Limit erreicht|Gemeinsames Limit erreicht",
    status="{label}: {used} von {what}",
    status_reset=", neu {at}",
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
    periods="par minute, par heure, par jour, par semaine, par mois, par trimestre, par an, "
    "par requête, à la fois",
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
    sources="dans les discussions enregistrées, dans les discussions temporaires, dans les canaux, "
    "dans les automatisations, via l’API, pour les tâches",
    reached="{owner} de {what}{named} est atteinte.",
    held="{owner} de {what}{named} est occupée par des réponses en cours. "
    "Veuillez réessayer ensuite.",
    stopped="arrêt\u00a0: {owner} de {what}{named} est atteinte.",
    no_model="Vous ne pouvez pas utiliser {model} ici{named}.",
    no_models="Vous ne pouvez utiliser aucun modèle ici{named}.",
    no_paid="Vous ne pouvez pas utiliser de modèles payants ici{named}.",
    per_request="Cette requête est trop longue\u00a0: au plus {quantity} par requête{on}{named}.",
    at_once="Vous avez déjà {quantity} en cours. Veuillez réessayer quand l’une sera terminée.",
    resets="Remise à zéro {at}{within}.",
    opens="Reprise {at}{within}.",
    within=", dans {within}",
    warning="{owner} de {what}{named} est utilisée à {percent}\u202f; {left}{until}.",
    left="reste {n}",
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
    periods="por minuto, por hora, por día, por semana, por mes, por trimestre, por año, "
    "por solicitud, a la vez",
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
    sources="en chats guardados, en chats temporales, en canales, "
    "en automatizaciones, por la API, para tareas",
    reached="has alcanzado {owner} de {what}{named}.",
    held="las respuestas en curso ocupan el resto; {owner} es de {what}{named}. "
    "Inténtalo de nuevo después.",
    stopped="detenida por {owner} de {what}{named}.",
    no_model="No puedes usar {model} aquí{named}.",
    no_models="No puedes usar ningún modelo aquí{named}.",
    no_paid="No puedes usar modelos de pago aquí{named}.",
    per_request="Esta solicitud es demasiado larga: máximo {quantity} por solicitud{on}{named}.",
    at_once="Ya tienes {quantity} en curso. Inténtalo de nuevo cuando termine una.",
    resets="Se restablece {at}{within}.",
    opens="Podrás seguir {at}{within}.",
    within=", en {within}",
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

ITALIAN = Language(
    tag="it",
    name="italiano",
    thousands=".",
    decimal=",",
    money="{amount}\u00a0$",
    less_than="meno di {amount}",
    units="token, token di input, token di output, richiesta|richieste, risposta|risposte",
    periods="al minuto, all’ora, al giorno, a settimana, al mese, a trimestre, all’anno, "
    "per richiesta, alla volta",
    rolling="ogni {n} {unit}",
    rolling_units="secondo|secondi, minuto|minuti, ora|ore, giorno|giorni",
    durations="g h min s",
    first_day="1º",
    months="gennaio febbraio marzo aprile maggio giugno "
    "luglio agosto settembre ottobre novembre dicembre",
    at="alle {time}",
    tomorrow="domani alle {time}",
    on_date="il {date} alle {time}",
    hour_one=("alle ", "all’"),
    owner="il tuo limite|il limite condiviso",
    on=" con {model}",
    sources="nelle chat salvate, nelle chat temporanee, nei canali, "
    "nelle automazioni, tramite l’API, per le attività",
    reached="hai raggiunto {owner} di {what}{named}.",
    held="le risposte in corso occupano il resto; {owner} è di {what}{named}. "
    "Riprova quando saranno terminate.",
    stopped="interrotta: raggiunto {owner} di {what}{named}.",
    no_model="Qui non puoi usare {model}{named}.",
    no_models="Qui non puoi usare alcun modello{named}.",
    no_paid="Qui non puoi usare modelli a pagamento{named}.",
    per_request="Questa richiesta è troppo lunga: al massimo {quantity} per richiesta{on}{named}.",
    at_once="Hai già {quantity} in corso. Riprova quando una sarà terminata.",
    resets="Si rinnova {at}{within}.",
    opens="Puoi continuare {at}{within}.",
    within=", tra {within}",
    warning="{owner} di {what}{named} è usato al {percent}; {left}{until}.",
    left="resta {n}|restano {n}",
    label="Utilizzo|Utilizzo condiviso",
    reached_label="Limite raggiunto|Limite condiviso raggiunto",
    status="{label}: {used} su {what}",
    status_reset=", si rinnova {at}",
    cap="Questa risposta può avere al massimo {quantity}.",
    ledger_error="Al momento l’utilizzo non può essere registrato, quindi non si accettano "
    "richieste. Riprova più tardi.",
)

BRAZILIAN_PORTUGUESE = Language(
    tag="pt-BR",
    name="português (Brasil)",
    plural=BELOW_TWO_OR_OTHER,
    thousands=".",
    decimal=",",
    money="US$\u00a0{amount}",
    less_than="menos de {amount}",
    units="token|tokens, token de entrada|tokens de entrada, token de saída|tokens de saída, "
    "solicitação|solicitações, resposta|respostas",
    periods="por minuto, por hora, por dia, por semana, por mês, por trimestre, por ano, "
    "por solicitação, ao mesmo tempo",
    rolling="a cada {n} {unit}",
    rolling_units="segundo|segundos, minuto|minutos, hora|horas, dia|dias",
    date="{day} de {month}",
    first_day="1º",
    months="janeiro fevereiro março abril maio junho "
    "julho agosto setembro outubro novembro dezembro",
    at="às {time}",
    tomorrow="amanhã às {time}",
    on_date="em {date} às {time}",
    hour_one=("às ", "à "),
    owner="seu limite|o limite compartilhado",
    on=" com {model}",
    sources="em chats salvos, em chats temporários, em canais, "
    "em automações, pela API, para tarefas",
    reached="{owner} de {what}{named} foi atingido.",
    held="as respostas em andamento ocupam o restante; {owner} é de {what}{named}. "
    "Tente novamente depois.",
    stopped="interrompida: {owner} de {what}{named} foi atingido.",
    no_model="Você não pode usar {model} aqui{named}.",
    no_models="Você não pode usar nenhum modelo aqui{named}.",
    no_paid="Você não pode usar modelos pagos aqui{named}.",
    per_request="Esta solicitação é longa demais: no máximo {quantity} por solicitação{on}{named}.",
    at_once="Você já tem {quantity} em andamento. Tente novamente quando uma terminar.",
    resets="Será renovado {at}{within}.",
    opens="Continue {at}{within}.",
    within=", em {within}",
    warning="{owner} de {what}{named} está em {percent}; {left}{until}.",
    left="resta {n}|restam {n}",
    label="Uso|Uso compartilhado",
    reached_label="Limite atingido|Limite compartilhado atingido",
    status="{label}: {used} de {what}",
    status_reset=", renovação {at}",
    cap="Esta resposta pode ter no máximo {quantity}.",
    ledger_error="O uso não pode ser registrado no momento, por isso nenhuma solicitação é "
    "aceita. Tente novamente mais tarde.",
)

DUTCH = Language(
    tag="nl",
    name="Nederlands",
    thousands=".",
    decimal=",",
    money="$\u00a0{amount}",
    less_than="minder dan {amount}",
    units="token|tokens, invoertoken|invoertokens, uitvoertoken|uitvoertokens, "
    "verzoek|verzoeken, antwoord|antwoorden",
    periods="per minuut, per uur, per dag, per week, per maand, per kwartaal, per jaar, "
    "per verzoek, tegelijk",
    rolling="per {n} {unit}",
    rolling_units="seconde|seconden, minuut|minuten, uur, dag|dagen",
    durations="d u min s",
    months="januari februari maart april mei juni "
    "juli augustus september oktober november december",
    at="om {time}",
    tomorrow="morgen om {time}",
    on_date="op {date} om {time}",
    owner="je limiet|de gedeelde limiet",
    on=" met {model}",
    sources="in bewaarde chats, in tijdelijke chats, in kanalen, "
    "in automatiseringen, via de API, voor taken",
    reached="{owner} van {what}{named} is bereikt.",
    held="lopende antwoorden bezetten de rest van {owner} van {what}{named}. "
    "Probeer het straks opnieuw.",
    stopped="gestopt, want {owner} van {what}{named} is bereikt.",
    no_model="Je kunt {model} hier niet gebruiken{named}.",
    no_models="Je kunt hier geen modellen gebruiken{named}.",
    no_paid="Je kunt hier geen betaalde modellen gebruiken{named}.",
    per_request="Dit verzoek is te lang: hoogstens {quantity} per verzoek{on}{named}.",
    at_once="Er loopt al {quantity}. Probeer het opnieuw als het klaar is.|"
    "Er lopen al {quantity}. Probeer het opnieuw als er een klaar is.",
    resets="Wordt vernieuwd {at}{within}.",
    opens="Je kunt verder {at}{within}.",
    within=", over {within}",
    warning="{owner} van {what}{named} is voor {percent} verbruikt; nog {left}{until}.",
    left="{n}",
    label="Gebruik|Gedeeld gebruik",
    reached_label="Limiet bereikt|Gedeelde limiet bereikt",
    status="{label}: {used} van {what}",
    status_reset=", vernieuwd {at}",
    cap="Dit antwoord mag hoogstens {quantity} lang zijn.",
    ledger_error="Het gebruik kan nu niet worden vastgelegd, dus er worden geen verzoeken "
    "aangenomen. Probeer het later opnieuw.",
)
