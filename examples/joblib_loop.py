"""A joblib loop on Holdfast: its batches are tasks, and a killed process does not lose the loop.

Needs `pip install 'joblib>=1.5'`. Run `python joblib_loop.py`.
"""

import os
import signal
from math import sqrt

from joblib import Parallel, delayed, parallel_config

import holdfast


def root(number: int) -> float:
    if number == 7 and holdfast.current().fence == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # The second attempt comes through.
    return sqrt(number)


with holdfast.connect() as hf:
    holdfast.register_joblib(hf)
    with parallel_config(backend="holdfast"):
        # All slots; Parallel(n_jobs=2) runs two batches at once, n_jobs=1 is a loop right here.
        roots = Parallel()(delayed(root)(number**2) for number in range(20))
    print(f"{sum(roots):g}")
