"""Page words: what the usage page says to users, in each language."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.openwebui.wording import Language

# The order in which each language lists its words.
PAGE_WORDS = (
    *("title", "limit", "used", "reserved", "left", "resets", "reached", "shared", "no_limits"),
    *("exempt", "by_day", "day", "by_model", "model", "requests", "input", "output", "tokens"),
    *("cost", "total", "replies", "time", "estimated", "running", "grants", "amount", "reason"),
    *("until", "nothing", "show_all", "refresh", "back", "sign_in", "failed"),
)
WORDS_BY_TAG: Mapping[str, str] = {
    "en": "Usage limits|Limit|Used|Reserved|Left|Resets|Reached|Shared|No limits apply to you."
    "|Your use is recorded, but never refused.|Use by day|Day|This month by model|Model|Requests"
    "|Input tokens|Output tokens|Tokens|Cost|Total|Responses this month|Time|estimated|running"
    "|Granted|Amount|Reason|Valid until|Nothing yet.|Show all|Refresh"
    "|Back to the chat|Please sign in to Open WebUI first."
    "|This can’t be shown right now. Please try again later.",
    "de": "Nutzungslimits|Limit|Verbraucht|Vorgemerkt|Übrig|Neu ab|Erreicht|Gemeinsam"
    "|Für Sie gelten keine Limits.|Ihre Nutzung wird erfasst, aber nie abgelehnt."
    "|Nutzung nach Tagen|Tag|Dieser Monat nach Modell|Modell|Anfragen|Eingabe-Token"
    "|Ausgabe-Token|Token|Kosten|Summe|Antworten dieses Monats|Zeit|geschätzt|läuft"
    "|Zusätzlich gewährt|Menge|Grund|Gültig bis|Noch nichts."
    "|Alle zeigen|Aktualisieren|Zurück zum Chat"
    "|Bitte melden Sie sich zuerst bei Open WebUI an."
    "|Das kann gerade nicht angezeigt werden. Bitte versuchen Sie es später erneut.",
    "fr": "Limites d’utilisation|Limite|Utilisé|Réservé|Restant|Réinitialisation|Atteinte|Commune"
    "|Aucune limite ne s’applique à vous."
    "|Votre utilisation est enregistrée, mais jamais refusée.|Utilisation par jour|Jour"
    "|Ce mois-ci par modèle|Modèle|Requêtes|Tokens d’entrée|Tokens de sortie|Tokens|Coût|Total"
    "|Réponses de ce mois|Heure|estimé|en cours|Accordé en plus|Quantité|Motif|Valable jusqu’au"
    "|Rien pour l’instant.|Tout afficher|Actualiser"
    "|Retour à la discussion|Veuillez d’abord vous connecter à Open WebUI."
    "|Affichage impossible pour le moment. Veuillez réessayer plus tard.",
    "es": "Límites de uso|Límite|Usado|Reservado|Queda|Se renueva|Alcanzado|Compartido"
    "|No se le aplica ningún límite.|Su uso se registra, pero nunca se rechaza.|Uso por día|Día"
    "|Este mes por modelo|Modelo|Solicitudes|Tokens de entrada|Tokens de salida|Tokens|Coste"
    "|Total|Respuestas de este mes|Hora|estimado|en curso|Concedido|Cantidad|Motivo|Válido hasta"
    "|Nada todavía.|Mostrar todo|Actualizar|Volver al chat"
    "|Inicie sesión primero en Open WebUI."
    "|No se puede mostrar en este momento. Inténtelo de nuevo más tarde.",
    "it": "Limiti di utilizzo|Limite|Usato|Riservato|Rimasto|Si azzera|Raggiunto|Condiviso"
    "|Per te non vale alcun limite.|Il tuo utilizzo è registrato, ma mai rifiutato."
    "|Utilizzo per giorno|Giorno|Questo mese per modello|Modello|Richieste|Token di input"
    "|Token di output|Token|Costo|Totale|Risposte di questo mese|Ora|stimato|in corso|Concesso"
    "|Quantità|Motivo|Valido fino a|Ancora niente.|Mostra tutto|Aggiorna"
    "|Torna alla chat|Accedi prima a Open WebUI."
    "|Al momento non è possibile mostrarlo. Riprova più tardi.",
    "pt-br": "Limites de uso|Limite|Usado|Reservado|Restante|Renova|Atingido|Compartilhado"
    "|Nenhum limite se aplica a você.|Seu uso é registrado, mas nunca recusado.|Uso por dia|Dia"
    "|Este mês por modelo|Modelo|Solicitações|Tokens de entrada|Tokens de saída|Tokens|Custo"
    "|Total|Respostas deste mês|Hora|estimado|em andamento|Concedido|Quantidade|Motivo"
    "|Válido até|Nada ainda.|Mostrar tudo|Atualizar|Voltar ao chat"
    "|Entre primeiro no Open WebUI."
    "|Não é possível mostrar isto agora. Tente novamente mais tarde.",
    "nl": "Gebruikslimieten|Limiet|Gebruikt|Gereserveerd|Over|Vernieuwt|Bereikt|Gedeeld"
    "|Voor u gelden geen limieten.|Uw gebruik wordt vastgelegd, maar nooit geweigerd."
    "|Gebruik per dag|Dag|Deze maand per model|Model|Verzoeken|Invoertokens|Uitvoertokens|Tokens"
    "|Kosten|Totaal|Antwoorden van deze maand|Tijd|geschat|bezig|Extra toegekend|Hoeveelheid"
    "|Reden|Geldig tot|Nog niets.|Alles tonen|Vernieuwen|Terug naar de chat"
    "|Meld u eerst aan bij Open WebUI."
    "|Dit kan nu niet worden getoond. Probeer het later opnieuw.",
    "pl": "Limity użycia|Limit|Zużyto|Zarezerwowano|Pozostało|Odnowienie|Wyczerpany|Wspólny"
    "|Nie obowiązują Cię żadne limity.|Twoje użycie jest zapisywane, ale nigdy nie odrzucane."
    "|Użycie według dni|Dzień|Ten miesiąc według modelu|Model|Żądania|Tokeny wejściowe"
    "|Tokeny wyjściowe|Tokeny|Koszt|Razem|Odpowiedzi z tego miesiąca|Czas|szacunkowo|w toku"
    "|Przyznano|Ilość|Powód|Ważne do|Jeszcze nic.|Pokaż wszystko"
    "|Odśwież|Powrót do czatu|Najpierw zaloguj się do Open WebUI."
    "|Nie można teraz tego pokazać. Spróbuj ponownie później.",
    "ru": "Лимиты использования|Лимит|Использовано|Зарезервировано|Осталось|Обновление|Исчерпан"
    "|Общий|Для вас нет лимитов.|Ваше использование записывается, но никогда не отклоняется."
    "|Использование по дням|День|Этот месяц по моделям|Модель|Запросы|Входные токены"
    "|Выходные токены|Токены|Стоимость|Итого|Ответы за этот месяц|Время|оценка|выполняется"
    "|Добавлено|Количество|Причина|Действует до|Пока ничего.|Показать все"
    "|Обновить|Вернуться в чат|Сначала войдите в Open WebUI."
    "|Сейчас это нельзя показать. Повторите попытку позже.",
    "uk": "Ліміти використання|Ліміт|Використано|Зарезервовано|Залишилося|Оновлення|Вичерпано"
    "|Спільний|Для вас немає лімітів.|Ваше використання записується, але ніколи не відхиляється."
    "|Використання за днями|День|Цей місяць за моделями|Модель|Запити|Вхідні токени"
    "|Вихідні токени|Токени|Вартість|Разом|Відповіді за цей місяць|Час|оцінка|виконується"
    "|Додано|Кількість|Причина|Діє до|Поки нічого.|Показати все|Оновити"
    "|Повернутися до чату|Спочатку увійдіть в Open WebUI."
    "|Зараз це неможливо показати. Спробуйте пізніше.",
    "tr": "Kullanım sınırları|Sınır|Kullanılan|Ayrılan|Kalan|Yenilenme|Doldu|Ortak"
    "|Sizin için bir sınır yok.|Kullanımınız kaydedilir, ancak hiçbir zaman reddedilmez."
    "|Günlere göre kullanım|Gün|Bu ay, modele göre|Model|İstekler|Giriş tokenleri"
    "|Çıktı tokenleri|Tokenler|Maliyet|Toplam|Bu ayın yanıtları|Zaman|tahmini|sürüyor"
    "|Ek olarak verilen|Miktar|Neden|Geçerlilik sonu|Henüz bir şey yok."
    "|Tümünü göster|Yenile|Sohbete dön|Lütfen önce Open WebUI’de oturum açın."
    "|Bu şu anda gösterilemiyor. Lütfen daha sonra yeniden deneyin.",
    "zh-cn": "用量限额|限额|已用|已占用|剩余|重置时间|已达限额|共享|您没有任何限额。"
    "|您的用量会被记录，但不会被拒绝。|每日用量|日期|本月各模型用量|模型|请求|输入 Token|输出 Token"
    "|Token|费用|合计|本月的回答|时间|估算|生成中|额外授予|数量|原因|有效期至|暂无。"
    "|显示全部|刷新|返回对话|请先登录 Open WebUI。|目前无法显示。请稍后重试。",
    "zh-tw": "用量限額|限額|已用|已占用|剩餘|重設時間|已達限額|共用|您沒有任何限額。"
    "|您的用量會被記錄，但不會被拒絕。|每日用量|日期|本月各模型用量|模型|請求|輸入 Token|輸出 Token"
    "|Token|費用|合計|本月的回應|時間|估算|產生中|額外授予|數量|原因|有效期限|尚無資料。"
    "|顯示全部|重新整理|返回對話|請先登入 Open WebUI。|目前無法顯示。請稍後再試。",
    "ja": "使用量の上限|上限|使用済み|予約済み|残り|リセット|上限到達|共有"
    "|あなたに適用される上限はありません。|使用量は記録されますが、拒否されることはありません。"
    "|日別の使用量|日|今月のモデル別使用量|モデル|リクエスト|入力トークン|出力トークン|トークン"
    "|費用|合計|今月の応答|日時|推定|生成中|追加付与|量|理由|有効期限|まだありません。"
    "|すべて表示|更新|チャットに戻る"
    "|先に Open WebUI にログインしてください。"
    "|現在表示できません。しばらくしてから再試行してください。",
    "ko": "사용량 한도|한도|사용|예약|남음|초기화|한도 도달|공유|적용되는 한도가 없습니다."
    "|사용량은 기록되지만 거부되지 않습니다.|일별 사용량|날짜|이번 달 모델별 사용량|모델|요청"
    "|입력 토큰|출력 토큰|토큰|비용|합계|이번 달 응답|시간|추정|생성 중|추가 부여|양|사유"
    "|유효 기한|아직 없습니다.|모두 표시|새로 고침|채팅으로 돌아가기"
    "|먼저 Open WebUI에 로그인하세요.|지금은 표시할 수 없습니다. 나중에 다시 시도하세요.",
    "ar": "حدود الاستخدام|الحدّ|المستخدَم|المحجوز|المتبقّي|التجديد|بُلغ الحدّ|مشترك"
    "|لا تسري عليك أي حدود.|يُسجَّل استخدامك ولا يُرفض أبدًا.|الاستخدام حسب اليوم|اليوم"
    "|هذا الشهر حسب النموذج|النموذج|الطلبات|رموز الإدخال|رموز الإخراج|الرموز|التكلفة|المجموع"
    "|ردود هذا الشهر|الوقت|تقديري|قيد التنفيذ|الممنوح|الكمية|السبب|صالح حتى|لا شيء بعد."
    "|عرض الكل|تحديث|العودة إلى المحادثة"
    "|يُرجى تسجيل الدخول إلى Open WebUI أولًا.|لا يمكن عرض هذا الآن. يُرجى المحاولة لاحقًا.",
    "he": "מכסות שימוש|מכסה|נוצל|שמור|נותר|מתחדש|המכסה נוצלה|משותף|לא חלות עליך מכסות."
    "|השימוש שלך נרשם, אך לעולם אינו נדחה.|שימוש לפי יום|יום|החודש לפי מודל|מודל|בקשות"
    "|אסימוני קלט|אסימוני פלט|אסימונים|עלות|סך הכול|התגובות של החודש|זמן|משוער|בתהליך"
    "|הוענק בנוסף|כמות|סיבה|בתוקף עד|אין עדיין.|הצג הכול|רענון|חזרה לצ׳אט"
    "|יש להיכנס תחילה ל-Open WebUI.|לא ניתן להציג זאת כעת. נסה שוב מאוחר יותר.",
}


def words_of(language: Language) -> list[str]:
    """A language's words in the order of `PAGE_WORDS`; a region without its own has others'."""
    tag = language.tag.lower()
    return (WORDS_BY_TAG.get(tag) or WORDS_BY_TAG[tag.partition("-")[0]]).split("|")
