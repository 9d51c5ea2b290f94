"""`python -m aggstream`: the command."""

import sys

from aggstream.cli import main

sys.exit(main())
