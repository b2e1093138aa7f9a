"""Chinese in traditional script."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

TAIWANESE_CHINESE = read_language("""
tag: zh-TW · name: 繁體中文 · plural: alike · less_than: 不到 {amount}
units: 個 Token, 個輸入 Token, 個輸出 Token, 次請求, 個回應
moments: 每次請求, 同時 · via: （{source}）
sources: 已儲存的對話, 臨時對話, 頻道, 自動化, 透過 API, 背景任務
periods: 每分鐘, 每小時, 每天, 每週, 每月, 每季, 每年 · rolling: 任意 {n} {unit}內
rolling_units: 秒, 分鐘, 小時, 天 · durations: 天 小時 分鐘 秒 · date: {month}月{day}日
moment: {date} {time} · at: {time} · tomorrow: 明天 {time} · on_date: {date} {time}
owner: 您的限額|共用限額 · what: {period} {quantity}{on} · on: （{model}） · named: （{policy}）
reached: {owner}{named}已用完：{what}。
held: {owner}{named}的剩餘部分已被正在產生的回應占用：{what}。請在其完成後重試。
stopped: 回應已停止：{owner}{named}已用完（{what}）。 · no_model: 此處無法使用 {model}{named}。
no_models: 此處無法使用任何模型{named}。 · no_paid: 此處無法使用付費模型{named}。
per_request: 請求過長：每次請求最多 {quantity}{on}{named}。
at_once: 您已有 {quantity}正在產生。請在其完成後重試。 · resets: 將於{at} 重設{within}。
opens: 可於{at} 繼續使用{within}。 · within: （{within}後）
warning: {owner}{named}已使用 {percent}：{what}，剩餘 {left}{until}。
label: 用量|共用用量 · reached_label: 已達限額|已達共用限額 · status: {label}：{what}，已用 {used}
share: （{percent}） · status_reset: ，{at} 重設 · cap: 此回應最多 {quantity}。
ledger_error: 目前無法記錄用量，因此暫不接受請求。請稍後再試。
show_usage: 顯示用量|在每個回應上方顯示您的用量。|接近限額時|一律|永不
page: 用量限額|限額|已用|已占用|剩餘|重設時間|已達限額|共用|您沒有任何限額。|
  您的用量會被記錄，但不會被拒絕。|每日用量|日期|本月各模型用量|模型|請求|輸入 Token|輸出 Token|
  Token|費用|合計|本月的回應|時間|估算|產生中|額外授予|數量|原因|有效期限|尚無資料。|顯示全部|
  重新整理|返回對話|請先登入 Open WebUI。|目前無法顯示。請稍後再試。|今日依模型統計
""")
