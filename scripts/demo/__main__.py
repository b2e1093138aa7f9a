"""python -m scripts.demo"""

import sys

from scripts.demo.command import main

sys.exit(main())
