"""Italian."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

ITALIAN = read_language("""
tag: it · name: italiano · thousands: . · decimal: , · money: {amount}\u00a0$
less_than: meno di {amount}
units: token, token di input, token di output, richiesta|richieste, risposta|risposte
moments: per richiesta, alla volta
sources: nelle chat salvate, nelle chat temporanee, nei canali, nelle automazioni, tramite l’API,
  per le attività
periods: al minuto, all’ora, al giorno, a settimana, al mese, a trimestre, all’anno
rolling: ogni {n} {unit} · rolling_units: secondo|secondi, minuto|minuti, ora|ore, giorno|giorni
durations: g h min s · first_day: 1º
months: gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre
  dicembre · at: alle {time} · tomorrow: domani alle {time} · on_date: il {date} alle {time}
hour_one: alle_|all’ · owner: il tuo limite|il limite condiviso · on: _con {model}
reached: hai raggiunto {owner} di {what}{named}.
held: le risposte in corso occupano il resto; {owner} è di {what}{named}. Riprova quando saranno
  terminate. · stopped: interrotta: raggiunto {owner} di {what}{named}.
no_model: Qui non puoi usare {model}{named}. · no_models: Qui non puoi usare alcun modello{named}.
no_paid: Qui non puoi usare modelli a pagamento{named}.
per_request: Questa richiesta è troppo lunga: al massimo {quantity} per richiesta{on}{named}.
at_once: Hai già {quantity} in corso. Riprova quando una sarà terminata.
resets: Si rinnova {at}{within}. · opens: Puoi continuare {at}{within}. · within: , tra {within}
warning: {owner} di {what}{named} è usato al {percent}; {left}{until}. · left: resta {n}|restano {n}
label: Utilizzo|Utilizzo condiviso · reached_label: Limite raggiunto|Limite condiviso raggiunto
status: {label}: {used} su {what} · status_reset: , si rinnova {at}
cap: Questa risposta può avere al massimo {quantity}.
ledger_error: Al momento l’utilizzo non può essere registrato, quindi non si accettano richieste.
  Riprova più tardi.
show_usage: Mostra utilizzo|Il tuo utilizzo sopra ogni risposta.|vicino a un limite|sempre|mai
page: Limiti di utilizzo|Limite|Usato|Riservato|Rimasto|Si azzera|Raggiunto|Condiviso|
  Per te non vale alcun limite.|Il tuo utilizzo è registrato, ma mai rifiutato.|Utilizzo per giorno|
  Giorno|Questo mese per modello|Modello|Richieste|Token di input|Token di output|Token|Costo|
  Totale|Risposte di questo mese|Ora|stimato|in corso|Concesso|Quantità|Motivo|Valido fino a|
  Ancora niente.|Mostra tutto|Aggiorna|Torna alla chat|Accedi prima a Open WebUI.|
  Al momento non è possibile mostrarlo. Riprova più tardi.|Oggi per modello
""")
