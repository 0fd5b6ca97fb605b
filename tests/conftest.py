"""What all tests share: nothing hangs on how they were started, or on how busy the machine is."""

import signal

from hypothesis import settings

settings.register_profile("deltawheel", settings(), deadline=None)
settings.load_profile("deltawheel")

# A run in the background of a script, or under nohup, ignores these, and so would all processes
# that tests start; those that must end by them would not.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
