"""The project's log: what a user should read, apart from what libraries say."""

import logging
import sys

from absl import logging as absl_logging
from tqdm import tqdm

log = logging.getLogger("moco_tf")


class _BesideProgressBar(logging.Handler):
    def emit(self, record):
        tqdm.write(self.format(record), file=sys.stderr)


def show_log():
    """Shows the project's log on stderr, and of the libraries' only warnings. For scripts."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = _BesideProgressBar()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
