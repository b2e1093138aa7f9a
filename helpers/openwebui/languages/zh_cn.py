"""Chinese in simplified script."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

CHINESE = read_language("""
tag: zh-CN · name: 简体中文 · plural: alike · less_than: 不到 {amount}
units: 个 Token, 个输入 Token, 个输出 Token, 次请求, 个回答
moments: 每次请求, 同时 · via: （{source}）
sources: 已保存的对话, 临时对话, 频道, 自动化, 通过 API, 后台任务
periods: 每分钟, 每小时, 每天, 每周, 每月, 每季度, 每年 · rolling: 任意 {n} {unit}内
rolling_units: 秒, 分钟, 小时, 天 · durations: 天 小时 分钟 秒 · date: {month}月{day}日
moment: {date} {time} · at: {time} · tomorrow: 明天 {time} · on_date: {date} {time}
owner: 您的限额|共享限额 · what: {period} {quantity}{on} · on: （{model}） · named: （{policy}）
reached: {owner}{named}已用完：{what}。
held: {owner}{named}的剩余部分已被正在生成的回答占用：{what}。请在其完成后重试。
stopped: 回答已停止：{owner}{named}已用完（{what}）。 · no_model: 此处不能使用 {model}{named}。
no_models: 此处不能使用任何模型{named}。 · no_paid: 此处不能使用付费模型{named}。
per_request: 请求过长：每次请求最多 {quantity}{on}{named}。
at_once: 您已有 {quantity}正在生成。请在其完成后重试。 · resets: 将于{at} 重置{within}。
opens: 可于{at} 继续{within}。 · within: （{within}后）
warning: {owner}{named}已使用 {percent}：{what}，剩余 {left}{until}。
label: 用量|共享用量 · reached_label: 已达限额|已达共享限额 · status: {label}：{what}，已用 {used}
share: （{percent}） · status_reset: ，{at} 重置 · cap: 此回答最多 {quantity}。
ledger_error: 目前无法记录用量，因此暂不接受请求。请稍后重试。
show_usage: 显示用量|在每个回答上方显示您的用量。|接近限额时|始终|从不
page: 用量限额|限额|已用|已占用|剩余|重置时间|已达限额|共享|您没有任何限额。|
  您的用量会被记录，但不会被拒绝。|每日用量|日期|本月各模型用量|模型|请求|输入 Token|输出 Token|
  Token|费用|合计|本月的回答|时间|估算|生成中|额外授予|数量|原因|有效期至|暂无。|显示全部|刷新|
  返回对话|请先登录 Open WebUI。|目前无法显示。请稍后重试。|今日按模型统计
""")
