"""What every test may rely on, however the tests were started."""

import signal

# A job in the background of a script is started with Ctrl-C ignored, and all its children inherit
# that: the tests send SIGINT to programs and expect them to end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
