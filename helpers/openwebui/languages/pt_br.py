"""Portuguese as written in Brazil."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

BRAZILIAN_PORTUGUESE = read_language("""
tag: pt-BR · name: português (Brasil) · plural: below two or other · thousands: . · decimal: ,
money: US$\u00a0{amount} · less_than: menos de {amount}
units: token|tokens, token de entrada|tokens de entrada, token de saída|tokens de saída,
  solicitação|solicitações, resposta|respostas
moments: por solicitação, ao mesmo tempo
sources: em chats salvos, em chats temporários, em canais, em automações, pela API, para tarefas
periods: por minuto, por hora, por dia, por semana, por mês, por trimestre, por ano
rolling: a cada {n} {unit} · rolling_units: segundo|segundos, minuto|minutos, hora|horas, dia|dias
date: {day} de {month} · first_day: 1º
months: janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro
at: às {time} · tomorrow: amanhã às {time} · on_date: em {date} às {time} · hour_one: às_|à_
owner: seu limite|o limite compartilhado · on: _com {model}
reached: {owner} de {what}{named} foi atingido.
held: as respostas em andamento ocupam o restante; {owner} é de {what}{named}. Tente novamente
  depois. · stopped: interrompida: {owner} de {what}{named} foi atingido.
no_model: Você não pode usar {model} aqui{named}.
no_models: Você não pode usar nenhum modelo aqui{named}.
no_paid: Você não pode usar modelos pagos aqui{named}.
per_request: Esta solicitação é longa demais: no máximo {quantity} por solicitação{on}{named}.
at_once: Você já tem {quantity} em andamento. Tente novamente quando uma terminar.
resets: Será renovado {at}{within}. · opens: Continue {at}{within}. · within: , em {within}
warning: {owner} de {what}{named} está em {percent}; {left}{until}. · left: resta {n}|restam {n}
label: Uso|Uso compartilhado · reached_label: Limite atingido|Limite compartilhado atingido
status: {label}: {used} de {what} · status_reset: , renovação {at}
cap: Esta resposta pode ter no máximo {quantity}.
ledger_error: O uso não pode ser registrado no momento, por isso nenhuma solicitação é aceita. Tente
  novamente mais tarde.
show_usage: Mostrar uso|Seu uso acima de cada resposta.|perto de um limite|sempre|nunca
page: Limites de uso|Limite|Usado|Reservado|Restante|Renova|Atingido|Compartilhado|
  Nenhum limite se aplica a você.|Seu uso é registrado, mas nunca recusado.|Uso por dia|Dia|
  Este mês por modelo|Modelo|Solicitações|Tokens de entrada|Tokens de saída|Tokens|Custo|Total|
  Respostas deste mês|Hora|estimado|em andamento|Concedido|Quantidade|Motivo|Válido até|Nada ainda.|
  Mostrar tudo|Atualizar|Voltar ao chat|Entre primeiro no Open WebUI.|
  Não é possível mostrar isto agora. Tente novamente mais tarde.|Hoje por modelo
""")
