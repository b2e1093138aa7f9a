"""Japanese."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

JAPANESE = read_language("""
tag: ja · name: 日本語 · plural: alike · less_than: {amount} 未満
units: トークン, 入力トークン, 出力トークン, リクエスト, 件の応答
moments: 1リクエストあたり, 同時に · via: （{source}）
sources: 保存されたチャット, 一時チャット, チャンネル, オートメーション, API 経由, タスク
periods: 1分あたり, 1時間あたり, 1日あたり, 1週間あたり, 1か月あたり, 四半期あたり, 1年あたり
rolling: 直近{n}{unit}で · rolling_units: 秒間, 分間, 時間, 日間 · durations: 日 時間 分 秒
duration: {n}{unit} · date: {month}月{day}日 · moment: {date} {time} · at: {time}
tomorrow: 明日 {time} · on_date: {date} {time} · owner: あなたの上限|共有の上限
what: {period} {quantity}{on} · on: （{model}） · named: （{policy}）
reached: {owner}{named}に達しました：{what}。
held: {owner}{named}の残りは生成中の応答が使用しています：{what}。完了後に再試行してください。
stopped: {owner}{named}に達したため、応答を停止しました：{what}。
no_model: ここでは {model} を使用できません{named}。
no_models: ここではモデルを使用できません{named}。
no_paid: ここでは有料モデルを使用できません{named}。
per_request: リクエストが長すぎます：1件あたり最大 {quantity}{on}{named}。
at_once: すでに {quantity}を生成中です。完了後に再試行してください。
resets: {at} にリセットされます{within}。 · opens: {at} から続けられます{within}。
within: （{within}後）
warning: {owner}{named}の {percent} を使用しました：{what}、残り {left}{until}。
label: 使用量|共有の使用量 · reached_label: 上限に達しました|共有の上限に達しました
status: {label}：{used} / {what} · share: （{percent}） · status_reset: 、{at} にリセット
cap: この応答は最大 {quantity}です。
ledger_error:
  現在使用量を記録できないため、リクエストを受け付けていません。しばらくしてから再試行してください。
show_usage: 使用量を表示|各応答の上に使用量を表示します。|上限に近いとき|常に|表示しない
page: 使用量の上限|上限|使用済み|予約済み|残り|リセット|上限到達|共有|
  あなたに適用される上限はありません。|使用量は記録されますが、拒否されることはありません。|
  日別の使用量|日|今月のモデル別使用量|モデル|リクエスト|入力トークン|出力トークン|トークン|費用|
  合計|今月の応答|日時|推定|生成中|追加付与|量|理由|有効期限|まだありません。|すべて表示|更新|
  チャットに戻る|先に Open WebUI にログインしてください。|
  現在表示できません。しばらくしてから再試行してください。|今日のモデル別使用量
""")
