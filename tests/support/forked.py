"""Commands in processes of their own, which share one import of TensorFlow and of the package.

They are forked off a server that has imported what takes 10 s in each, see preloaded.py.
"""

import functools
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["preloaded"])
SUPPORT = pathlib.Path(__file__).parent


@functools.cache
def start_server():
    """Starts the server where it finds preloaded.py; it would go on without what it cannot find."""
    path = os.environ.get("PYTHONPATH")
    folders = [str(SUPPORT), str(SUPPORT.parents[1]), *([path] if path else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if path:
            os.environ["PYTHONPATH"] = path


class Process:
    """A Python command that runs; to its user a `subprocess.Popen`, output kept together.

    Args:
        args: as on a command line, after the name of the interpreter.
        cwd: folder to run it in.
        env: dict, its whole environment.
    """

    def __init__(self, args, cwd, env):
        self.args = args
        self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115 it lives as long as this
        given = ([str(arg) for arg in args], str(cwd), env, self._output.name)
        start_server()
        self._process = SERVER.Process(target=_run, args=given, daemon=True)
        self._process.start()

    def poll(self):
        return self._process.exitcode

    @property
    def returncode(self):
        return self.poll()

    def send_signal(self, sig):
        if self.poll() is None:
            os.kill(self._process.pid, sig)

    def kill(self):
        self._process.kill()

    def communicate(self, timeout=None):
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        with open(self._output.name, errors="replace") as file:
            return file.read(), None


def _run(args, cwd, env, output):
    """In the new process: becomes the command."""
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(file, standard)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if args[0] == "-m":
        sys.argv = args[1:]
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = args
        runpy.run_path(args[0], run_name="__main__")
