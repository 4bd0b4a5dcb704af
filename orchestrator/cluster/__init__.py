"""The machines and the workers on them: placed, started, watched, kept in step, and given back."""

import os

# Read by Ray when it is first imported. A Ray of one machine, which this process starts for itself, then listens on the
# loopback interface alone; whoever reaches one of its ports can run code. The name speaks of the systems on which that
# is its default.
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Nor does it start a process for every core beforehand: workers have environments, and so processes of their own.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
