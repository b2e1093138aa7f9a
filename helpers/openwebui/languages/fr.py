"""French."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

FRENCH = read_language("""
tag: fr · name: français · plural: below two or other · thousands: \u202f · decimal: ,
money: {amount}\u00a0$ · less_than: moins de {amount} · percent: {n}\u202f%
units: token|tokens, token d’entrée|tokens d’entrée, token de sortie|tokens de sortie,
  requête|requêtes, réponse|réponses
moments: par requête, à la fois
sources: dans les discussions enregistrées, dans les discussions temporaires, dans les canaux,
  dans les automatisations, via l’API, pour les tâches
periods: par minute, par heure, par jour, par semaine, par mois, par trimestre, par an
rolling: sur {n} {unit}
rolling_units: seconde glissante|secondes glissantes, minute glissante|minutes glissantes, heure
  glissante|heures glissantes, jour glissant|jours glissants · durations: j h min s · first_day: 1er
months: janvier février mars avril mai juin juillet août septembre octobre novembre décembre
at: à {time} · tomorrow: demain à {time} · on_date: le {date} à {time}
owner: votre limite|la limite commune · on: _avec {model}
reached: {owner} de {what}{named} est atteinte.
held: {owner} de {what}{named} est occupée par des réponses en cours. Veuillez réessayer ensuite.
stopped: arrêt\u00a0: {owner} de {what}{named} est atteinte.
no_model: Vous ne pouvez pas utiliser {model} ici{named}.
no_models: Vous ne pouvez utiliser aucun modèle ici{named}.
no_paid: Vous ne pouvez pas utiliser de modèles payants ici{named}.
per_request: Cette requête est trop longue\u00a0: au plus {quantity} par requête{on}{named}.
at_once: Vous avez déjà {quantity} en cours. Veuillez réessayer quand l’une sera terminée.
resets: Remise à zéro {at}{within}. · opens: Reprise {at}{within}. · within: , dans {within}
warning: {owner} de {what}{named} est utilisée à {percent}\u202f; {left}{until}. · left: reste {n}
label: Utilisation|Utilisation commune · reached_label: Limite atteinte|Limite commune atteinte
status: {label}\u00a0: {used} sur {what} · status_reset: , remise à zéro {at}
cap: Cette réponse peut compter au plus {quantity}.
ledger_error: L’utilisation ne peut pas être enregistrée pour le moment\u00a0: aucune requête n’est
  acceptée. Veuillez réessayer plus tard.
show_usage: Afficher l’utilisation|Votre utilisation au-dessus de chaque réponse.|
  à l’approche d’une limite|toujours|jamais
page: Limites d’utilisation|Limite|Utilisé|Réservé|Restant|Réinitialisation|Atteinte|Commune|
  Aucune limite ne s’applique à vous.|Votre utilisation est enregistrée, mais jamais refusée.|
  Utilisation par jour|Jour|Ce mois-ci par modèle|Modèle|Requêtes|Tokens d’entrée|Tokens de sortie|
  Tokens|Coût|Total|Réponses de ce mois|Heure|estimé|en cours|Accordé en plus|Quantité|Motif|
  Valable jusqu’au|Rien pour l’instant.|Tout afficher|Actualiser|Retour à la discussion|
  Veuillez d’abord vous connecter à Open WebUI.|
  Affichage impossible pour le moment. Veuillez réessayer plus tard.|Aujourd’hui par modèle
""")
