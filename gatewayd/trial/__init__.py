"""Changes of the mode while the daemon runs: a confirmed change, a trial with an end, and the trip. Pure.

    stages    which stage is in force: the precedence of the trip, the schedule, a trial, an order, and the file
    state     what is pending and what was ordered; each command and each tick of the clock as a function
    record    the state as bytes, which survives a restart
    trip      what rises by more than its threshold within a minute
    views     the state as status, metrics and commands show it

The model is the confirmed commit of RFC 6241 §8.4. A change that is not confirmed in time takes itself back, and a
lost session changes nothing. The record is on disk before the kernel is asked: a kill at any moment leaves a state
that a start can judge. Within a boot the time that has elapsed decides, also in suspend (CLOCK_BOOTTIME). The clock
may be set, and the ten minutes of an operator go on while a machine sleeps. After a reboot a trial is over.

Two rules hold in each function. Nothing arms without an operator who is there: not a reboot, a restart, a trip or
the end of observe. And the way back is where the first command found the gateway, however often the timer is moved.

Review notes: does each way out of a trial leave no timer? Can a kill leave a disk that says armed while the memory
said observe? Is each refusal one sentence that names the command to give instead?
"""
