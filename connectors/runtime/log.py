"""The connector's log. Nothing of a message's body, and no text of a partner's answer or of an
exception that may quote one, is ever written to it."""

import logging
from typing import Final

LOG: Final = logging.getLogger("smpbus.connector")
