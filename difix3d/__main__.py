"""python -m difix3d"""

import sys

from difix3d.cli import main

sys.exit(main())
