"""`python -m router.commands` is the `smpbus` command."""

import sys

from router.commands import main

sys.exit(main())
