"""Spanish."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

SPANISH = read_language("""
tag: es · name: español · thousands: \u202f · decimal: , · grouped_from: 10000
money: {amount}\u00a0USD · less_than: menos de {amount} · percent: {n}\u00a0%
units: token|tokens, token de entrada|tokens de entrada, token de salida|tokens de salida,
  solicitud|solicitudes, respuesta|respuestas
moments: por solicitud, a la vez
sources: en chats guardados, en chats temporales, en canales, en automatizaciones, por la API,
  para tareas
periods: por minuto, por hora, por día, por semana, por mes, por trimestre, por año
rolling: por cada {n} {unit} · rolling_units: segundo|segundos, minuto|minutos, hora|horas, día|días
date: {day} de {month}
months: enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
at: a las {time} · tomorrow: mañana a las {time} · on_date: el {date} a las {time}
hour_one: a las_|a la_ · owner: tu límite|el límite compartido · on: _con {model}
reached: has alcanzado {owner} de {what}{named}.
held: las respuestas en curso ocupan el resto; {owner} es de {what}{named}. Inténtalo de nuevo
  después. · stopped: detenida por {owner} de {what}{named}.
no_model: No puedes usar {model} aquí{named}. · no_models: No puedes usar ningún modelo aquí{named}.
no_paid: No puedes usar modelos de pago aquí{named}.
per_request: Esta solicitud es demasiado larga: máximo {quantity} por solicitud{on}{named}.
at_once: Ya tienes {quantity} en curso. Inténtalo de nuevo cuando termine una.
resets: Se restablece {at}{within}. · opens: Podrás seguir {at}{within}. · within: , en {within}
warning: {owner} de {what}{named} está al {percent}; {left}{until}. · left: queda {n}|quedan {n}
label: Uso|Uso compartido · reached_label: Límite alcanzado|Límite compartido alcanzado
status: {label}: {used} de {what} · status_reset: , se restablece {at}
cap: Esta respuesta puede tener como máximo {quantity}.
ledger_error: El uso no se puede registrar en este momento, por lo que no se aceptan solicitudes.
  Inténtalo de nuevo más tarde.
show_usage: Mostrar uso|Tu uso encima de cada respuesta.|cerca de un límite|siempre|nunca
page: Límites de uso|Límite|Usado|Reservado|Queda|Se restablece|Alcanzado|Compartido|
  No se te aplica ningún límite.|Tu uso se registra, pero nunca se rechaza.|Uso por día|Día|
  Este mes por modelo|Modelo|Solicitudes|Tokens de entrada|Tokens de salida|Tokens|Coste|Total|
  Respuestas de este mes|Hora|estimado|en curso|Concedido|Cantidad|Motivo|Válido hasta|
  Nada todavía.|Mostrar todo|Actualizar|Volver al chat|Inicia sesión primero en Open WebUI.|
  No se puede mostrar en este momento. Inténtalo de nuevo más tarde.|Hoy por modelo
""")
