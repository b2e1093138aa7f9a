"""Korean."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

KOREAN = read_language("""
tag: ko · name: 한국어 · plural: alike · less_than: {amount} 미만 · counted: {unit} {amount}개
units: 토큰, 입력 토큰, 출력 토큰, 요청, 응답
moments: 요청당, 동시 · via: ({source})
sources: 저장된 채팅, 임시 채팅, 채널, 자동화, API 사용, 작업
periods: 분당, 시간당, 하루, 주당, 월간, 분기당, 연간 · rolling: 최근 {n}{unit}
rolling_units: 초, 분, 시간, 일 · durations: 일 시간 분 초 · duration: {n}{unit}
date: {month}월 {day}일 · moment: {date} {time} · at: {time} · tomorrow: 내일 {time}
on_date: {date} {time} · owner: 내 한도|공유 한도 · what: {period} {quantity}{on} · on: ({model})
named: ({policy}) · reached: {owner}{named}에 도달했습니다: {what}.
held: {owner}{named}의 나머지는 생성 중인 응답이 사용하고 있습니다: {what}. 응답이 끝난 후 다시
  시도하세요. · stopped: {owner}{named}에 도달하여 응답이 중지되었습니다: {what}.
no_model: 여기서는 다음 모델을 사용할 수 없습니다: {model}{named}.
no_models: 여기서는 모델을 사용할 수 없습니다{named}.
no_paid: 여기서는 유료 모델을 사용할 수 없습니다{named}.
per_request: 요청이 너무 깁니다: 요청당 최대 {quantity}{on}{named}.
at_once: 이미 {quantity}가 생성 중입니다. 응답이 끝난 후 다시 시도하세요.
resets: {at}에 초기화됩니다{within}. · opens: {at}부터 계속할 수 있습니다{within}.
within: ({within} 후) · warning: {owner}{named}의 {percent}를 사용했습니다: {what}, {left}{until}.
left: {n} 남음 · label: 사용량|공유 사용량 · reached_label: 한도 도달|공유 한도 도달
status: {label}: {used} / {what} · status_reset: , {at} 초기화
cap: 이 응답은 최대 {quantity}입니다.
ledger_error: 지금은 사용량을 기록할 수 없어 요청을 받지 않습니다. 나중에 다시 시도하세요.
show_usage: 사용량 표시|각 응답 위에 사용량을 표시합니다.|한도에 가까울 때|항상|표시 안 함
page: 사용량 한도|한도|사용|예약|남음|초기화|한도 도달|공유|적용되는 한도가 없습니다.|
  사용량은 기록되지만 거부되지 않습니다.|일별 사용량|날짜|이번 달 모델별 사용량|모델|요청|입력 토큰|
  출력 토큰|토큰|비용|합계|이번 달 응답|시간|추정|생성 중|추가 부여|양|사유|유효 기한|
  아직 없습니다.|모두 표시|새로 고침|채팅으로 돌아가기|먼저 Open WebUI에 로그인하세요.|
  지금은 표시할 수 없습니다. 나중에 다시 시도하세요.|오늘 모델별 사용량
""")
