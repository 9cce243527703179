"""A progress bar that a killed process cannot stop."""

import threading

from tqdm import tqdm


class ProgressBar(tqdm):  # type: ignore[type-arg]  # not subscriptable at run time
    """tqdm's bar with a lock of this process alone, and without tqdm's monitor thread.

    By default a process and its forks share one lock, and a fork that is killed while it draws
    never releases it: the others would wait for ever.
    """

    monitor_interval = 0


ProgressBar.set_lock(threading.RLock())
