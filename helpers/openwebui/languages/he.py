"""Hebrew."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

HEBREW = read_language("""
tag: he · name: עברית · plural: Hebrew · right_to_left: yes · less_than: פחות מ-{amount}
units: אסימון|אסימונים, אסימון קלט|אסימוני קלט, אסימון פלט|אסימוני פלט, בקשה|בקשות, תגובה|תגובות
moments: לבקשה, בו-זמנית · via: _({source})
sources: בשיחות שמורות, בשיחות זמניות, בערוצים, באוטומציות, דרך ה-API, למשימות
periods: לדקה, לשעה, ליום, לשבוע, לחודש, לרבעון, לשנה · rolling: בכל {n} {unit}
rolling_units: שנייה|שניות, דקה|דקות, שעה|שעות, יום|ימים · durations: ימ׳ שע׳ דק׳ שנ׳
date: {day} ב{month}
months: ינואר פברואר מרץ אפריל מאי יוני יולי אוגוסט ספטמבר אוקטובר נובמבר דצמבר · at: בשעה {time}
tomorrow: מחר בשעה {time} · on_date: ב-{date} בשעה {time} · owner: המכסה שלך|המכסה המשותפת
on: _({model}) · reached: {owner}{named} נוצלה: {what}.
held: תגובות שעדיין נוצרות תופסות את יתרת {owner}{named}: {what}. נסה שוב לאחר שיסתיימו.
stopped: התגובה נעצרה כי {owner}{named} נוצלה: {what}.
no_model: לא ניתן להשתמש כאן במודל {model}{named}. · no_models: לא ניתן להשתמש כאן במודלים{named}.
no_paid: לא ניתן להשתמש כאן במודלים בתשלום{named}.
per_request: הבקשה ארוכה מדי, המכסה לבקשה: {quantity}{on}{named}.
at_once: כבר נוצרות תגובות: {quantity}. נסה שוב לאחר שאחת מהן תסתיים.
resets: המכסה תתחדש {at}{within}. · opens: אפשר להמשיך {at}{within}. · within: , בעוד {within}
warning: נוצלו {percent} מתוך {owner}{named}: {what}, נותרו {left}{until}.
label: שימוש|שימוש משותף · reached_label: המכסה נוצלה|המכסה המשותפת נוצלה
status: {label}: {used} מתוך {what} · status_reset: , תתחדש {at}
cap: אורך התגובה המרבי: {quantity}.
ledger_error: לא ניתן לרשום את השימוש כעת, ולכן בקשות אינן מתקבלות. נסה שוב מאוחר יותר.
show_usage: הצגת השימוש|השימוש שלך מעל כל תגובה.|קרוב למכסה|תמיד|אף פעם
page: מכסות שימוש|מכסה|נוצל|שמור|נותר|מתחדש|המכסה נוצלה|משותף|לא חלות עליך מכסות.|
  השימוש שלך נרשם, אך לעולם אינו נדחה.|שימוש לפי יום|יום|החודש לפי מודל|מודל|בקשות|אסימוני קלט|
  אסימוני פלט|אסימונים|עלות|סך הכול|התגובות של החודש|זמן|משוער|בתהליך|הוענק בנוסף|כמות|סיבה|
  בתוקף עד|אין עדיין.|הצג הכול|רענון|חזרה לצ׳אט|יש להיכנס תחילה ל-Open WebUI.|
  לא ניתן להציג זאת כעת. נסה שוב מאוחר יותר.|היום לפי מודל
""")
