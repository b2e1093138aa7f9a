"""German."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

GERMAN = read_language("""
tag: de · name: Deutsch · thousands: . · decimal: , · money: {amount}\u00a0$
less_than: weniger als {amount} · percent: {n}\u00a0%
units: Token, Eingabe-Token, Ausgabe-Token, Anfrage|Anfragen, Antwort|Antworten
moments: pro Anfrage, gleichzeitig
sources: in gespeicherten Chats, in temporären Chats, in Kanälen, in Automatisierungen, über die
  API, für Aufgaben
periods: pro Minute, pro Stunde, pro Tag, pro Woche, pro Monat, pro Quartal, pro Jahr
rolling: innerhalb von {n} {unit}
rolling_units: Sekunde|Sekunden, Minute|Minuten, Stunde|Stunden, Tag|Tagen
durations: Tg. Std. Min. Sek. · clock: {clock} Uhr · date: {day}. {month}
months: Januar Februar März April Mai Juni Juli August September Oktober November Dezember
at: um {time} · tomorrow: morgen um {time} · on_date: am {date} um {time}
owner: Ihr Limit|das gemeinsame Limit · on: _für {model}
reached: {owner} von {what}{named} ist erreicht.
held: {owner} von {what}{named} ist für laufende Antworten vorgemerkt. Bitte gleich erneut
  versuchen. · stopped: beendet, denn {owner} von {what}{named} ist erreicht.
no_model: Sie können {model} hier nicht verwenden{named}.
no_models: Sie können hier keine Modelle verwenden{named}.
no_paid: Sie können hier keine kostenpflichtigen Modelle verwenden{named}.
per_request: Diese Anfrage ist zu lang: höchstens {quantity} pro Anfrage{on}{named}.
at_once: Es läuft bereits {quantity}. Bitte versuchen Sie es nach deren Ende erneut.|Es laufen
  bereits {quantity}. Bitte versuchen Sie es erneut, wenn eine beendet ist.
resets: Wieder verfügbar {at}{within}. · opens: Weiter {at}{within}. · within: , in {within}
warning: {owner} von {what}{named} ist zu {percent} verbraucht; noch {left}{until}.
label: Nutzung|Gemeinsame Nutzung · reached_label: Limit erreicht|Gemeinsames Limit erreicht
status: {label}: {used} von {what} · status_reset: , neu {at}
cap: Diese Antwort kann höchstens {quantity} lang sein.
ledger_error: Die Nutzung kann gerade nicht erfasst werden, deshalb werden keine Anfragen
  angenommen. Bitte versuchen Sie es später erneut.
show_usage: Nutzung anzeigen|Ihre Nutzung über jeder Antwort.|kurz vor einem Limit|immer|nie
page: Nutzungslimits|Limit|Verbraucht|Vorgemerkt|Übrig|Neu ab|Erreicht|Gemeinsam|
  Für Sie gelten keine Limits.|Ihre Nutzung wird erfasst, aber nie abgelehnt.|Nutzung nach Tagen|
  Tag|Dieser Monat nach Modell|Modell|Anfragen|Eingabe-Token|Ausgabe-Token|Token|Kosten|Summe|
  Antworten dieses Monats|Zeit|geschätzt|läuft|Zusätzlich gewährt|Menge|Grund|Gültig bis|
  Noch nichts.|Alle zeigen|Aktualisieren|Zurück zum Chat|
  Bitte melden Sie sich zuerst bei Open WebUI an.|
  Das kann gerade nicht angezeigt werden. Bitte versuchen Sie es später erneut.|
  Heute nach Modell
""")
