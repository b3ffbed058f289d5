"""gs:// without Google: TensorFlow's own client talks to a server on this machine.

Needs root (to listen on port 443), `unshare` and `openssl`, and the server beside the project.
"""

import contextlib
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import tiny

SERVER = tiny.ROOT.parent / "shared" / "tools" / "gcs" / "fake_gcs.py"
HOSTS = "www.googleapis.com storage.googleapis.com"


def missing():
    """What this machine lacks, in words; "" for nothing."""
    if not SERVER.exists():
        return "no ../shared/tools/gcs beside the project"
    if os.geteuid() != 0:
        return "needs root, to listen on port 443 and to change hosts"
    tools = [name for name in ("unshare", "openssl") if not shutil.which(name)]
    return f"needs {', '.join(tools)}" if tools else ""


class Cloud:
    """Buckets on this machine, and commands that see them as gs://.

    Args:
        folder: `pathlib.Path` for certificates and logs.
        log: file of the server's requests, a line each.
    """

    def __init__(self, folder, log):
        self._folder = folder
        self._log = log
        self._context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._context.check_hostname = False

    def put(self, address, content):
        """Writes bytes to gs://BUCKET/NAME."""
        bucket, _, name = address.removeprefix("gs://").partition("/")
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        self._request(f"/upload/storage/v1/b/{bucket}/o?{query}", content)

    def download(self, address, folder):
        """Copies all objects below gs://BUCKET/PREFIX to a local folder."""
        code = (
            "import sys, os, tensorflow as tf\n"
            "for d, _, names in tf.io.gfile.walk(sys.argv[1]):\n"
            "    out = os.path.join(sys.argv[2], os.path.relpath(d, sys.argv[1]))\n"
            "    os.makedirs(out, exist_ok=True)\n"
            "    for name in names:\n"
            "        tf.io.gfile.copy(os.path.join(d, name), os.path.join(out, name))\n"
        )
        self.run([sys.executable, "-c", code, address, str(folder)])

    def run(self, args, code=0):
        """Runs a command that sees the buckets, to its end; returns its output."""
        shell = 'mount --bind "$0" /etc/hosts && exec "$@"'
        hosts = str(self._folder / "hosts")
        environment = {
            **os.environ,
            "NO_GCE_CHECK": "true",
            "CURL_CA_BUNDLE": str(self._folder / "ca.crt"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", shell, hosts, *map(str, args)],
            cwd=tiny.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
        )
        assert done.returncode == code, done.stdout[-4000:]
        return done.stdout

    def requests(self):
        """The requests since the last call, such as "GET /storage/v1/b/x/o HTTP/1.1" 200 -"."""
        lines = pathlib.Path(self._log.name).read_text().splitlines()
        start, self._seen = getattr(self, "_seen", 0), len(lines)
        return lines[start:]

    def _request(self, path, content=None):
        request = urllib.request.Request(f"https://127.0.0.1{path}", data=content, method="POST")
        for attempt in range(20):
            try:
                return urllib.request.urlopen(request, context=self._context).read()
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == 19:
                    raise


@contextlib.contextmanager
def serve(folder, fail_every=0):
    """A `Cloud` in a folder; each `fail_every`-th request is answered 503."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    names = ",".join(f"DNS:{name}" for name in HOSTS.split())
    (folder / "extensions").write_text(f"subjectAltName={names}\n")
    key = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test ca")
    openssl("req", *key, "-keyout", "s.key", "-out", "s.csr", "-subj", f"/CN={HOSTS.split()[0]}")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions")
    openssl("x509", "-req", "-in", "s.csr", *signed, "-out", "s.crt")
    (folder / "s.pem").write_text((folder / "s.crt").read_text() + (folder / "s.key").read_text())
    (folder / "hosts").write_text(pathlib.Path("/etc/hosts").read_text() + f"127.0.0.1 {HOSTS}\n")
    command = [sys.executable, str(SERVER), str(folder / "s.pem"), f"--fail-every={fail_every}"]
    with open(folder / "requests.log", "w") as log:
        server = subprocess.Popen(command, stderr=log)
        try:
            cloud = Cloud(folder, log)
            deadline = time.time() + 30
            while True:
                try:
                    cloud.put("gs://bucket/ready", b"")
                    break
                except OSError:
                    assert server.poll() is None and time.time() < deadline
                    time.sleep(0.1)
            yield cloud
        finally:
            server.kill()
            server.wait()
