"""Starts TensorFlow: fast on every x86 CPU, and without lines that look like errors.

Imported before everything else of the package, and imports TensorFlow first.
"""

import contextlib
import os
import platform
import re
import sys
import tempfile

from moco_tf.log import log

# TensorFlow's lines on a machine that is all right. They come before its log level is read.
NOISE = re.compile(
    r"WARNING: All log messages before absl::InitializeLog\(\)"
    r"|[IWE]0000 .* (port|cudart_stub|cpu_feature_guard|computation_placer)\.cc:"
)
NO_GPU_NOISE = re.compile(r"E0000 .* cuda_platform\.cc:\d+\] failed call to cuInit")


@contextlib.contextmanager
def quiet():
    """Holds back what is written to the error stream, also by C++, and then shows all but noise."""
    has_driver = os.path.exists("/proc/driver/nvidia")
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        stream = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stream, 2)
            os.close(stream)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                if not NOISE.match(line) and (has_driver or not NO_GPU_NOISE.match(line)):
                    print(line, file=sys.stderr)


def has_onednn() -> bool:
    """Whether TensorFlow's ops on the CPU are those of oneDNN, which round differently."""
    from tensorflow.python.util import _pywrap_util_port

    return _pywrap_util_port.IsMklEnabled()


def _start():
    # TensorFlow switches oneDNN on by itself only for CPUs with AVX512_VNNI or newer.
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    was_imported = "tensorflow" in sys.modules
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if is_x86 and not was_imported:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with quiet():
        import keras
        import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "moco_tf needs Keras' TensorFlow backend. Received: "
            f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow before Python starts."
        )
    is_slow = is_x86 and was_imported and not has_onednn()
    if is_slow and not tf.config.list_physical_devices("GPU"):
        log.warning(
            "oneDNN is off, so a step on this CPU takes up to twice as long. Import moco_tf before "
            "tensorflow, or set the environment variable TF_ENABLE_ONEDNN_OPTS=1."
        )


_start()
