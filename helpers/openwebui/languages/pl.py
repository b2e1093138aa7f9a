"""Polish."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

POLISH = read_language("""
tag: pl · name: polski · plural: Polish · thousands: \u00a0 · decimal: , · grouped_from: 10000
money: {amount}\u00a0USD · less_than: mniej niż {amount}
units: token|tokeny|tokenów, token wejściowy|tokeny wejściowe|tokenów wejściowych, token
  wyjściowy|tokeny wyjściowe|tokenów wyjściowych, żądanie|żądania|żądań, odpowiedź|odpowiedzi
moments: na żądanie, jednocześnie · via: _({source})
sources: w zapisanych czatach, w czatach tymczasowych, na kanałach, w automatyzacjach, przez API,
  dla zadań
periods: na minutę, na godzinę, dziennie, tygodniowo, miesięcznie, kwartalnie, rocznie
rolling: w ciągu {n} {unit} · rolling_units: sekundy|sekund, minuty|minut, godziny|godzin, dnia|dni
months: stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada
  grudnia · at: o {time} · tomorrow: jutro o {time} · on_date: {date} o {time}
owner: Twój limit|wspólny limit · on: _({model})
reached: {owner}{named} został wyczerpany: {what}.
held: resztę zajmują trwające odpowiedzi; {owner}{named}: {what}. Spróbuj ponownie po ich
  zakończeniu. · stopped: zatrzymano, bo {owner}{named} został wyczerpany: {what}.
no_model: Nie możesz tu używać modelu {model}{named}.
no_models: Nie możesz tu używać żadnych modeli{named}.
no_paid: Nie możesz tu używać płatnych modeli{named}.
per_request: To żądanie jest za długie, limit na żądanie: {quantity}{on}{named}.
at_once: Już trwa {quantity}. Spróbuj ponownie po zakończeniu.|Już trwają {quantity}. Spróbuj
  ponownie po zakończeniu jednej z nich.|Już trwa {quantity}. Spróbuj ponownie po zakończeniu jednej
  z nich. · resets: Odnowienie {at}{within}. · opens: Możesz kontynuować {at}{within}.
within: , za {within}
warning: {owner}{named} jest wykorzystany w {percent}: {what}, {left}{until}. · left: pozostało {n}
label: Użycie|Wspólne użycie · reached_label: Limit wyczerpany|Wspólny limit wyczerpany
status: {label}: {used} / {what} · status_reset: , odnowienie {at}
cap: Limit tej odpowiedzi: {quantity}.
ledger_error: Nie można teraz zapisać użycia, więc żądania nie są przyjmowane. Spróbuj ponownie
  później.
show_usage: Pokaż użycie|Twoje użycie nad każdą odpowiedzią.|blisko limitu|zawsze|nigdy
page: Limity użycia|Limit|Zużyto|Zarezerwowano|Pozostało|Odnowienie|Wyczerpany|Wspólny|
  Nie obowiązują Cię żadne limity.|Twoje użycie jest zapisywane, ale nigdy nie odrzucane.|
  Użycie według dni|Dzień|Ten miesiąc według modelu|Model|Żądania|Tokeny wejściowe|Tokeny wyjściowe|
  Tokeny|Koszt|Razem|Odpowiedzi z tego miesiąca|Czas|szacunkowo|w toku|Przyznano|Ilość|Powód|
  Ważne do|Jeszcze nic.|Pokaż wszystko|Odśwież|Powrót do czatu|Najpierw zaloguj się do Open WebUI.|
  Nie można teraz tego pokazać. Spróbuj ponownie później.|Dzisiaj według modelu
""")
