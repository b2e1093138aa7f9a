"""python -m scripts.compat"""

import sys

from scripts.compat.command import main

sys.exit(main())
