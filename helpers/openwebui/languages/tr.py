"""Turkish."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

TURKISH = read_language("""
tag: tr · name: Türkçe · thousands: . · decimal: , · money: {amount}\u00a0$
less_than: {amount} altında · percent: %{n} · units: token, giriş tokeni, çıktı tokeni, istek, yanıt
moments: istek başına, aynı anda · via: _({source})
sources: kayıtlı sohbetlerde, geçici sohbetlerde, kanallarda, otomasyonlarda, API üzerinden,
  görevlerde
periods: dakika başına, saat başına, günlük, haftalık, aylık, üç aylık, yıllık
rolling: her {n} {unit} için · rolling_units: saniye, dakika, saat, gün · durations: g sa dk sn
months: Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık · at: saat {time}
tomorrow: yarın saat {time} · on_date: {date} saat {time} · owner: sınırınız|ortak sınır
what: {period} {quantity}{on} · on: _({model}) · reached: {owner}{named} doldu: {what}.
held: {owner}{named}, kalanı süren yanıtlara ayrıldı: {what}. Yanıtlar bitince tekrar deneyin.
stopped: durduruldu, {owner}{named} doldu: {what}.
no_model: Bu modeli burada kullanamazsınız: {model}{named}.
no_models: Burada hiçbir modeli kullanamazsınız{named}.
no_paid: Burada ücretli modelleri kullanamazsınız{named}.
per_request: Bu istek çok uzun, istek başına sınır: {quantity}{on}{named}.
at_once: Zaten süren {quantity} var. Biri bitince tekrar deneyin. · resets: Yenilenme: {at}{within}.
opens: Devam: {at}{within}. · within: _({within} sonra)
warning: {owner}{named}, kullanılan {percent}: {what}, kalan {left}{until}.
label: Kullanım|Ortak kullanım · reached_label: Sınır doldu|Ortak sınır doldu
status: {label}: {used} / {what} · status_reset: , yenilenme {at}
cap: Bu yanıtın sınırı: {quantity}.
ledger_error: Kullanım şu anda kaydedilemediği için istek kabul edilmiyor. Lütfen daha sonra tekrar
  deneyin.
show_usage: Kullanımı göster|Her yanıtın üstünde kullanımınız.|sınıra yaklaşınca|her
  zaman|hiçbir zaman
page: Kullanım sınırları|Sınır|Kullanılan|Ayrılan|Kalan|Yenilenme|Doldu|Ortak|
  Sizin için bir sınır yok.|Kullanımınız kaydedilir, ancak hiçbir zaman reddedilmez.|
  Günlere göre kullanım|Gün|Bu ay, modele göre|Model|İstekler|Giriş tokenleri|Çıktı tokenleri|
  Tokenler|Maliyet|Toplam|Bu ayın yanıtları|Zaman|tahmini|sürüyor|Ek olarak verilen|Miktar|Neden|
  Geçerlilik sonu|Henüz bir şey yok.|Tümünü göster|Yenile|Sohbete dön|
  Lütfen önce Open WebUI’de oturum açın.|
  Bu şu anda gösterilemiyor. Lütfen daha sonra yeniden deneyin.|Modele göre bugün
""")
