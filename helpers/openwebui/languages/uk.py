"""Ukrainian."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

UKRAINIAN = read_language("""
tag: uk · name: українська · plural: Slavic · thousands: \u00a0 · decimal: ,
money: {amount}\u00a0$ · less_than: менше ніж {amount}
units: токен|токени|токенів, вхідний токен|вхідні токени|вхідних токенів, вихідний токен|вихідні
  токени|вихідних токенів, запит|запити|запитів, відповідь|відповіді|відповідей
periods: на хвилину, на годину, на день, на тиждень, на місяць, на квартал, на рік
rolling: за будь-які {n} {unit}
rolling_units: секунду|секунди|секунд, хвилину|хвилини|хвилин, годину|години|годин, день|дні|днів
durations: д год хв с
months: січня лютого березня квітня травня червня липня серпня вересня жовтня листопада грудня
at: о {time} · tomorrow: завтра о {time} · on_date: {date} о {time}
owner: ваш ліміт|спільний ліміт · on: _({model}) · reached: {owner}{named} вичерпано: {what}.
held: решту зайняли поточні відповіді; {owner}{named}: {what}. Спробуйте ще раз пізніше.
stopped: зупинено, {owner}{named} вичерпано: {what}.
no_model: Тут не можна використовувати {model}{named}.
no_models: Тут не можна використовувати моделі{named}.
no_paid: Тут не можна використовувати платні моделі{named}.
per_request: Запит задовгий, ліміт на один запит: {quantity}{on}{named}.
at_once: Уже генерується {quantity}. Спробуйте ще раз, коли вона завершиться.|Уже генеруються
  {quantity}. Спробуйте ще раз, коли одна з них завершиться.|Уже генерується {quantity}. Спробуйте
  ще раз, коли одна з них завершиться. · resets: Оновиться {at}{within}.
opens: Можна продовжити {at}{within}. · within: , через {within}
warning: {owner}{named} використано на {percent}: {what}, залишилося {left}{until}.
label: Використання|Спільне використання · reached_label: Ліміт вичерпано|Спільний ліміт вичерпано
status: {label}: {used} / {what} · status_reset: , оновиться {at}
cap: Ліміт цієї відповіді: {quantity}.
ledger_error: Зараз використання не записується, тому запити не приймаються. Спробуйте ще раз
  пізніше.
show_usage: Показувати використання|Ваше використання над кожною відповіддю.|поблизу
  ліміту|завжди|ніколи
""")
