"""Time of the same work in other libraries.

One process a library, so only the order of magnitude can be compared; `peers/report.py` runs them
in turn. Install them with ``make peers`` and run this with that environment's asv.
"""

import os

from . import workloads
from .peer_calls import PEERS, CannotRunError


class Peers:
    """A fresh result each call, whoever runs."""

    params = (tuple(PEERS), workloads.NAMES, workloads.METHODS)
    param_names = ("peer", "workload", "method")
    repeat = (3, 10, 1.0)
    sample_time = 0.01
    warmup_time = 0.1
    timeout = 120

    def setup(self, peer, name, method):
        try:
            self.call = PEERS[peer](workloads.make(name), method, os.cpu_count() or 1)
            self.call()
        except ImportError as error:
            raise NotImplementedError(f"{error.name} is not installed") from None
        except CannotRunError as error:
            raise NotImplementedError(str(error)) from None

    def time_peer(self, peer, name, method):
        self.call()
