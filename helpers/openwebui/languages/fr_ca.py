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
""",
    FRENCH,
)
