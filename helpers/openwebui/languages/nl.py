"""Dutch."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

DUTCH = read_language("""
tag: nl · name: Nederlands · thousands: . · decimal: , · money: $\u00a0{amount}
less_than: minder dan {amount}
units: token|tokens, invoertoken|invoertokens, uitvoertoken|uitvoertokens, verzoek|verzoeken,
  antwoord|antwoorden
moments: per verzoek, tegelijk
sources: in bewaarde chats, in tijdelijke chats, in kanalen, in automatiseringen, via de API,
  voor taken
periods: per minuut, per uur, per dag, per week, per maand, per kwartaal, per jaar
rolling: per {n} {unit} · rolling_units: seconde|seconden, minuut|minuten, uur, dag|dagen
durations: d u min s
months: januari februari maart april mei juni juli augustus september oktober november december
at: om {time} · tomorrow: morgen om {time} · on_date: op {date} om {time}
owner: je limiet|de gedeelde limiet · on: _met {model}
reached: {owner} van {what}{named} is bereikt.
held: lopende antwoorden bezetten de rest van {owner} van {what}{named}. Probeer het straks opnieuw.
stopped: gestopt, want {owner} van {what}{named} is bereikt.
no_model: Je kunt {model} hier niet gebruiken{named}.
no_models: Je kunt hier geen modellen gebruiken{named}.
no_paid: Je kunt hier geen betaalde modellen gebruiken{named}.
per_request: Dit verzoek is te lang: hoogstens {quantity} per verzoek{on}{named}.
at_once: Er loopt al {quantity}. Probeer het opnieuw als het klaar is.|Er lopen al {quantity}.
  Probeer het opnieuw als er een klaar is. · resets: Wordt vernieuwd {at}{within}.
opens: Je kunt verder {at}{within}. · within: , over {within}
warning: {owner} van {what}{named} is voor {percent} verbruikt; nog {left}{until}.
label: Gebruik|Gedeeld gebruik · reached_label: Limiet bereikt|Gedeelde limiet bereikt
status: {label}: {used} van {what} · status_reset: , vernieuwd {at}
cap: Dit antwoord mag hoogstens {quantity} lang zijn.
ledger_error: Het gebruik kan nu niet worden vastgelegd, dus er worden geen verzoeken aangenomen.
  Probeer het later opnieuw.
show_usage: Gebruik tonen|Je gebruik boven elk antwoord.|dicht bij een limiet|altijd|nooit
page: Gebruikslimieten|Limiet|Gebruikt|Gereserveerd|Over|Vernieuwt|Bereikt|Gedeeld|
  Voor jou gelden geen limieten.|Je gebruik wordt vastgelegd, maar nooit geweigerd.|Gebruik per dag|
  Dag|Deze maand per model|Model|Verzoeken|Invoertokens|Uitvoertokens|Tokens|Kosten|Totaal|
  Antwoorden van deze maand|Tijd|geschat|bezig|Extra toegekend|Hoeveelheid|Reden|Geldig tot|
  Nog niets.|Alles tonen|Vernieuwen|Terug naar de chat|Meld je eerst aan bij Open WebUI.|
  Dit kan nu niet worden getoond. Probeer het later opnieuw.|Vandaag per model
""")
