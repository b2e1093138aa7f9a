"""python -m scripts.provider --port 9099"""

from scripts.provider.server import main

main()
