"""python -m scripts.limits"""

import sys

from scripts.limits.command import main

sys.exit(main())
