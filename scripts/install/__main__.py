"""python -m scripts.install"""

import sys

from scripts.install.command import main

sys.exit(main())
