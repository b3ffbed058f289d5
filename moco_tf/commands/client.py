"""Client of TensorFlow Serving: embeds images by a served encoder, over gRPC or REST.

    python -m moco_tf client --server=HOST:PORT [--protocol=rest] --output=embeddings.npz IMAGE...

An IMAGE is a file, a folder with all files below it, or a glob. The file holds for each image, in
order: name, embedding (unit length), feature, and ok, which is false if it cannot be decoded.

What was received is kept in OUTPUT.parts/ until all is. After an error, SIGTERM or Ctrl-C the same
command goes on there.
"""

import base64
import json
import os
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

from moco_tf import storage
from moco_tf.commands import script
from moco_tf.commands.signals import STOP
from moco_tf.evaluation.embedding_parts import Parts, check_output
from moco_tf.log import log

FLAGS = flags.FLAGS
INSTALL = 'pip install ".[serving]"'
SIGNATURE = "embed_bytes"
OUTPUTS = {"embedding": np.float32, "feature": np.float32, "ok": bool}


class Grpc:
    """Connection to a server over gRPC.

    Args:
        server: "HOST:PORT".
        model: name of the model on the server.
        deadline_s: longest wait for an answer, over all attempts.
        attempts: number of attempts while the server is not available, 1 to 5.
    """

    def __init__(
        self, server: str, model: str = "moco", deadline_s: float = 30.0, attempts: int = 5
    ):
        try:
            import grpc
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        except ImportError as error:
            raise ValueError(f"--protocol=grpc needs tensorflow-serving-api: {INSTALL}") from error
        self._error, self._messages = grpc.RpcError, predict_pb2
        self._server, self._model, self._deadline_s = server, model, deadline_s
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        if attempts > 1:
            policy = {
                "maxAttempts": attempts,
                "initialBackoff": "0.5s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            }
            method = {"name": [{}], "retryPolicy": policy}
            options.append(("grpc.service_config", json.dumps({"methodConfig": [method]})))
        channel = grpc.insecure_channel(server, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def embed(self, encoded: list[bytes]) -> dict[str, np.ndarray]:
        """Embeds images.

        Args:
            encoded: N images as JPEG, PNG or WebP.

        Returns:
            Dict of embedding: float32 NxD, feature: float32 NxC, ok: bool N.

        Raises:
            ConnectionError: if no attempt gets an answer, or the answer has no embeddings.
        """
        request = self._messages.PredictRequest()
        request.model_spec.name = self._model
        request.model_spec.signature_name = SIGNATURE
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(encoded, tf.string))
        try:
            answer = self._stub.Predict(request, timeout=self._deadline_s)
        except self._error as error:
            raise _no_answer(self._server, f"{error.code().name}, {error.details()}") from error
        if not answer.outputs.keys() >= OUTPUTS.keys():
            raise _no_answer(self._server, f"the outputs {', '.join(answer.outputs)}")
        return {name: tf.make_ndarray(answer.outputs[name]) for name in OUTPUTS}


class Rest:
    """Connection to a server over REST, with the same interface as `Grpc`.

    Args:
        server: "HOST:PORT".
        model: name of the model on the server.
        deadline_s: longest wait for an answer, in each attempt.
        attempts: number of attempts while the server is not available.
    """

    def __init__(
        self, server: str, model: str = "moco", deadline_s: float = 30.0, attempts: int = 5
    ):
        try:
            import requests
            from requests.adapters import HTTPAdapter
            from urllib3.util import Retry
        except ImportError as error:
            raise ValueError(f"--protocol=rest needs requests: {INSTALL}") from error
        self._error, self._server, self._deadline_s = requests.RequestException, server, deadline_s
        self._url = f"http://{server}/v1/models/{model}:predict"
        retry = Retry(
            total=attempts - 1,
            backoff_factor=0.5,
            status_forcelist=(429, 503),
            allowed_methods=("POST",),
        )
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(max_retries=retry))

    def embed(self, encoded: list[bytes]) -> dict[str, np.ndarray]:
        """Embeds images; same as `Grpc.embed`."""
        images = [{"b64": base64.b64encode(content).decode()} for content in encoded]
        body = {"signature_name": SIGNATURE, "inputs": {"image_bytes": images}}
        try:
            answer = self._session.post(self._url, json=body, timeout=self._deadline_s)
        except self._error as error:
            raise _no_answer(self._server, error) from error
        if answer.status_code != 200:
            raise _no_answer(self._server, f"status {answer.status_code}, {answer.text[:500]}")
        try:
            outputs = answer.json()["outputs"]
            return {name: np.array(outputs[name], dtype) for name, dtype in OUTPUTS.items()}
        except (ValueError, KeyError, TypeError) as error:
            raise _no_answer(self._server, f"{answer.text[:500]!r}") from error


def _no_answer(server, received):
    return ConnectionError(
        f"The server {server} must answer with embeddings. Received: {received}. Does it run on "
        "this port, with this model?"
    )


def embed_files(server: Grpc | Rest, paths: list[str], batch: int = 32) -> Iterator[dict]:
    """Embeds image files, a batch at a time.

    Args:
        server: connection to the server.
        paths: local or gs:// files.
        batch: files in a request; at most the server's largest batch.

    Yields:
        Dict of arrays for each request: the outputs of `embed`, and name: the paths.
    """
    for start in range(0, len(paths), batch):
        names = paths[start : start + batch]
        contents = [storage.read_bytes(path) for path in names]
        yield {"name": np.array(names), **server.embed(contents)}


def files_of(arguments: list[str]) -> list[str]:
    """Paths of the files that names, folders and globs stand for, sorted within each.

    Raises:
        ValueError: for an argument without any file.
    """
    paths = []
    for argument in arguments:
        exists = tf.io.gfile.exists(argument)  # the name of a file may look like a glob
        names = [argument] if exists else sorted(tf.io.gfile.glob(argument))
        matches = [path for name in names for path in _below(name)]
        if not matches:
            raise ValueError(f"An image must be a file, folder or glob. Received: {argument!r}.")
        paths += matches
    return paths


def _below(name):
    """All files below a folder, or the file itself."""
    if not tf.io.gfile.isdir(name):
        return [name]
    walk = tf.io.gfile.walk(name)
    return sorted(os.path.join(folder, n) for folder, _, names in walk for n in names)


def define_flags():
    """Defines the flags; not at import, so that commands with other flags can import this."""
    flags.DEFINE_string("server", None, "HOST:PORT of the server.", required=True)
    flags.DEFINE_enum("protocol", "grpc", ["grpc", "rest"], "Protocol of the server.")
    flags.DEFINE_string("model", "moco", "Name of the model on the server.")
    flags.DEFINE_string("output", "embeddings.npz", "File to write, .npz or .parquet.")
    flags.DEFINE_integer(
        "batch", 32, "Images in a request; at most the server's largest batch.", lower_bound=1
    )
    flags.DEFINE_float("deadline_s", 30.0, "Longest wait for an answer.", lower_bound=0.1)
    flags.DEFINE_integer("attempts", 5, "How often a request is sent.", 1, 5)


def check(rest):
    """Refuses a command without images."""
    if not rest:
        raise ValueError("Name images: files, folders or globs. Received: none.")
    check_output(FLAGS.output)


def main(rest):
    """The command."""
    paths = files_of(rest)
    connect = {"grpc": Grpc, "rest": Rest}[FLAGS.protocol]
    server = connect(FLAGS.server, FLAGS.model, FLAGS.deadline_s, FLAGS.attempts)
    tf.io.gfile.makedirs(os.path.dirname(FLAGS.output) or ".")
    parts = Parts(FLAGS.output)
    done = parts.num_done(paths)
    stop = STOP.listen()
    with tqdm(total=len(paths), initial=done, unit="image") as bar:
        _embed_rest(server, paths, parts, bar, stop)
    if bar.n < len(paths):
        log.info("%d of %d images are done. The same command goes on.", bar.n, len(paths))
        sys.exit(128 + stop.number)
    bad, such_as = parts.undecodable()
    if bad:
        log.warning("%d cannot be decoded, such as %s; their ok is false.", bad, ", ".join(such_as))
    rows, dim = parts.join()["embedding"]
    print(f"{FLAGS.output}: {rows} of {len(paths)} embeddings of {dim} numbers")


def _embed_rest(server, paths, parts, bar, stop):
    """Embeds the images that the parts lack, until it is asked to stop."""
    try:
        for answer in embed_files(server, paths[bar.n :], FLAGS.batch):
            parts.add(answer)
            bar.update(len(answer["name"]))
            if stop():
                break
    finally:  # after an error, keep what was received
        parts.flush()


def run():
    """Starts the command with the arguments of the process."""
    define_flags()
    script.run(main, check)
