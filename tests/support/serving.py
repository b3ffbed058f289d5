"""Stand-ins for TensorFlow Serving: its loader in C, its two protocols over the exported model."""

import base64
import concurrent.futures
import contextlib
import functools
import http.server
import json
import pathlib
import shutil
import subprocess
import tempfile
import threading

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2


def graph_of(exported):
    """The meta graph of a SavedModel."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((pathlib.Path(exported) / "saved_model.pb").read_bytes())
    (meta,) = saved.meta_graphs
    return meta


def ops_of(exported):
    """Names of the ops and functions that its graph calls, and of its functions: two sets."""
    graph = graph_of(exported).graph_def
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return {node.op for node in nodes}, {f.signature.name for f in graph.library.function}


def warmup_requests(exported):
    """List of `(signature, dict of inputs)`; skips the test without the protocol."""
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = pathlib.Path(exported) / "assets.extra" / "tf_serving_warmup_requests"
    requests = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = logs.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        requests.append((request.model_spec.signature_name, inputs))
    return requests


@functools.cache
def c_client():
    """tests/c_api_client.c, built against the TensorFlow in this environment."""
    path = pathlib.Path(tempfile.mkdtemp()) / "client"
    lib = tf.sysconfig.get_lib()
    source = pathlib.Path(__file__).parent / "c_api_client.c"
    command = ["gcc", "-O2", "-Wall", "-Werror", "-o", path, source]
    command += [f"-I{tf.sysconfig.get_include()}", f"-L{lib}", f"-Wl,-rpath,{lib}"]
    command += ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2", "-lpthread", "-lm"]
    if shutil.which("ld.gold"):
        command.append("-fuse-ld=gold")  # seconds less, of so large a library
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("the C client is built by gcc, which is not installed")
    return path


def run_c_client(exported, paths, threads=0, requests=0, output="embedding"):
    """What the C client prints of some files, for a float32 NxD output of the default signature."""
    signature = graph_of(exported).signature_def["serving_default"]
    tensors = [signature.inputs["image_bytes"].name]
    tensors += [signature.outputs[name].name for name in (output, "ok")]
    command = [c_client(), exported, *tensors, str(threads), str(requests), *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


class _Model:
    """The newest version in a folder, which fails `failures` times before it answers."""

    def __init__(self, folder, failures):
        versions = [p for p in pathlib.Path(folder).iterdir() if p.name.isdigit()]
        newest = max(versions, key=lambda p: int(p.name))
        self._model = tf.saved_model.load(str(newest))
        self.failures, self.requests, self._lock = failures, 0, threading.Lock()

    def fails(self):
        with self._lock:
            self.requests += 1
            return self.requests <= self.failures

    def answer(self, signature, inputs):
        inputs = {name: tf.constant(value) for name, value in inputs.items()}
        outputs = self._model.signatures[signature](**inputs)
        return {name: value.numpy() for name, value in outputs.items()}


@contextlib.contextmanager
def grpc_server(folder, failures=0):
    """The gRPC service, made from its real protocol, over an exported folder.

    Yields:
        `(address, model)`.
    """
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    model = _Model(folder, failures)

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            if request.model_spec.name != "moco":
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
            if model.fails():
                context.abort(grpc.StatusCode.UNAVAILABLE, "still loading")
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            response = predict_pb2.PredictResponse()
            outputs = model.answer(request.model_spec.signature_name, inputs)
            for name, value in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", model
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def rest_server(folder, failures=0):
    """The REST interface, as far as the client uses it; yields as `grpc_server`.

    Source: tensorflow.org/tfx/serving/api_rest
    """
    model = _Model(folder, failures)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/models/moco:predict":
                return self._reply(404, {"error": "Servable not found for request"})
            if model.fails():
                return self._reply(503, {"error": "still loading"})
            texts = body["inputs"]["image_bytes"]
            inputs = {"image_bytes": [base64.b64decode(text["b64"]) for text in texts]}
            outputs = model.answer(body["signature_name"], inputs)
            self._reply(200, {"outputs": {name: v.tolist() for name, v in outputs.items()}})

        def _reply(self, status, content):
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
