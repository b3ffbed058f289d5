"""CPU seconds, bytes read and memory of a block of code in this process."""

import pathlib
import re
import resource
import threading


class Meter:
    """Measures a block: CPU seconds, bytes read, peak of anonymous memory above its start."""

    def __enter__(self):
        self._stop = threading.Event()
        self._start, self._peak = _anonymous(), 0
        self._cpu, self._read = _cpu(), _read_bytes()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.01):
            self._peak = max(self._peak, _anonymous() - self._start)

    def __exit__(self, *_):
        self.cpu_s = _cpu() - self._cpu
        self.read = _read_bytes() - self._read
        self._peak = max(self._peak, _anonymous() - self._start)
        self._stop.set()
        self._thread.join()
        self.memory = self._peak


def _cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _read_bytes():
    return int(re.search(r"rchar: (\d+)", pathlib.Path("/proc/self/io").read_text())[1])


def _anonymous():
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])
