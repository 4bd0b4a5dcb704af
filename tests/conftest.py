"""One thread a process, said before torch is loaded: the suite runs as many processes as there are cores.

With more, each waits for the others' threads by spinning: tests of models then take three times the processor's time.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
