"""French as written in Canada."""

from __future__ import annotations

from helpers.openwebui.languages.fr import FRENCH
from helpers.openwebui.wording import read_language

CANADIAN_FRENCH = read_language(
    """
tag: fr-CA · name: français (Canada) · percent: {n}\u00a0%
units: jeton|jetons, jeton d’entrée|jetons d’entrée, jeton de sortie|jetons de sortie,
  requête|requêtes, réponse|réponses
warning: {owner} de {what}{named} est utilisée à {percent}; {left}{until}.
page: Limites d’utilisation|Limite|Utilisé|Réservé|Restant|Réinitialisation|Atteinte|Commune|
  Aucune limite ne s’applique à vous.|Votre utilisation est enregistrée, mais jamais refusée.|
  Utilisation par jour|Jour|Ce mois-ci par modèle|Modèle|Requêtes|Jetons d’entrée|Jetons de sortie|
  Jetons|Coût|Total|Réponses de ce mois|Heure|estimé|en cours|Accordé en plus|Quantité|Motif|
  Valable jusqu’au|Rien pour l’instant.|Tout afficher|Actualiser|Retour à la discussion|
  Veuillez d’abord vous connecter à Open WebUI.|
  Affichage impossible pour le moment. Veuillez réessayer plus tard.|Aujourd’hui par modèle
""",
    FRENCH,
)
