"""Russian."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

RUSSIAN = read_language("""
tag: ru · name: русский · plural: Slavic · thousands: \u00a0 · decimal: , · money: {amount}\u00a0$
less_than: менее {amount} · percent: {n}\u00a0%
units: токен|токена|токенов, входной токен|входных токена|входных токенов, выходной токен|выходных
  токена|выходных токенов, запрос|запроса|запросов, ответ|ответа|ответов
moments: на запрос, одновременно · via: _({source})
sources: в сохранённых чатах, во временных чатах, в каналах, в автоматизациях, через API, для
  задач
periods: в минуту, в час, в день, в неделю, в месяц, в квартал, в год · rolling: за любые {n} {unit}
rolling_units: секунду|секунды|секунд, минуту|минуты|минут, час|часа|часов, день|дня|дней
durations: д ч мин с
months: января февраля марта апреля мая июня июля августа сентября октября ноября декабря
at: в {time} · tomorrow: завтра в {time} · on_date: {date} в {time} · owner: ваш лимит|общий лимит
on: _({model}) · reached: {owner}{named} исчерпан: {what}.
held: остаток занят текущими ответами; {owner}{named}: {what}. Повторите попытку позже.
stopped: остановлено, {owner}{named} исчерпан: {what}.
no_model: Здесь нельзя использовать {model}{named}.
no_models: Здесь нельзя использовать модели{named}.
no_paid: Здесь нельзя использовать платные модели{named}.
per_request: Слишком длинный запрос, лимит на один запрос: {quantity}{on}{named}.
at_once: Уже генерируется {quantity}. Повторите попытку, когда он завершится.|Уже генерируются
  {quantity}. Повторите попытку, когда один из них завершится.|Уже генерируется {quantity}.
  Повторите попытку, когда один из них завершится. · resets: Обновится {at}{within}.
opens: Можно продолжить {at}{within}. · within: , через {within}
warning: {owner}{named} использован на {percent}: {what}, осталось {left}{until}.
label: Использование|Общее использование · reached_label: Лимит исчерпан|Общий лимит исчерпан
status: {label}: {used} / {what} · status_reset: , обновится {at}
cap: Лимит этого ответа: {quantity}.
ledger_error: Сейчас использование не записывается, поэтому запросы не принимаются. Повторите
  попытку позже.
show_usage: Показывать использование|Ваше использование над каждым ответом.|вблизи
  лимита|всегда|никогда
""")
