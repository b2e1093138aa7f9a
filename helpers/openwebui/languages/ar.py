"""Arabic."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

ARABIC = read_language("""
tag: ar · name: العربية · plural: Arabic · right_to_left: yes · less_than: أقل من {amount}
counted: {amount} {unit}|{unit}|{unit}|{amount} {unit}
units: رمز|رمز واحد|رمزان|رموز|رمزًا|رمز, رمز إدخال|رمز إدخال واحد|رمزا إدخال|رموز إدخال|رمز إدخال,
  رمز إخراج|رمز إخراج واحد|رمزا إخراج|رموز إخراج|رمز إخراج, طلب|طلب واحد|طلبان|طلبات|طلبًا|طلب, رد|رد
  واحد|ردان|ردود|ردًا|رد
moments: لكل طلب, في آن واحد · via: _({source})
sources: في المحادثات المحفوظة, في المحادثات المؤقتة, في القنوات, في الأتمتة, عبر API, للمهام
periods: في الدقيقة, في الساعة, في اليوم, في الأسبوع, في الشهر, في ربع السنة, في السنة
rolling: خلال آخر {n} {unit}
rolling_units: ثانية|ثانية|ثانيتين|ثوانٍ|ثانية, دقيقة|دقيقة|دقيقتين|دقائق|دقيقة,
  ساعة|ساعة|ساعتين|ساعات|ساعة, يوم|يوم|يومين|أيام|يومًا|يوم · durations: ي س د ث
months: يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر
moment: {date}، {time} · at: الساعة {time} · tomorrow: غدًا الساعة {time}
on_date: يوم {date} الساعة {time} · owner: حدّك|الحدّ المشترك · on: _({model})
reached: تم بلوغ {owner}{named}: {what}.
held: الردود الجارية تشغل ما تبقّى من {owner}{named}: {what}. حاول مرة أخرى بعد انتهائها.
stopped: توقّف الرد لبلوغ {owner}{named}: {what}. · no_model: لا يمكنك استخدام {model} هنا{named}.
no_models: لا يمكنك استخدام أي نموذج هنا{named}.
no_paid: لا يمكنك استخدام النماذج المدفوعة هنا{named}.
per_request: هذا الطلب طويل جدًا، والحدّ لكل طلب: {quantity}{on}{named}.
at_once: لديك ردود جارية بالفعل: {quantity}. حاول مرة أخرى بعد انتهاء أحدها.
resets: يُجدَّد {at}{within}. · opens: يمكنك المتابعة {at}{within}. · within: ، بعد {within}
warning: استُخدم {percent} من {owner}{named}: {what}، والمتبقي {left}{until}.
label: الاستخدام|الاستخدام المشترك · reached_label: تم بلوغ الحدّ|تم بلوغ الحدّ المشترك
status: {label}: {used} من {what} · status_reset: ، يُجدَّد {at}
cap: الحدّ الأقصى لهذا الرد: {quantity}.
ledger_error: يتعذّر تسجيل الاستخدام حاليًا، لذلك لا تُقبل أي طلبات. حاول مرة أخرى لاحقًا.
show_usage: عرض الاستخدام|استخدامك فوق كل رد.|عند الاقتراب من الحدّ|دائمًا|أبدًا
""")
