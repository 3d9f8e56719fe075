"""``python -m alphapack`` is the command ``alphapack``."""

import sys

from alphapack.cli import main

sys.exit(main())
