"""Backends for telemetry on real sockets, which keep what they were sent."""

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class HttpCollector(ThreadingHTTPServer):
    """OTLP/HTTP: what came where, with which credentials."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.received: list[tuple[str, str | None, bytes]] = []
        self._thread = threading.Thread(target=self.serve_forever, args=[0.01])
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, HttpCollector)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.path, self.headers["authorization"], body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


_GRPC: dict[str, Any] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": ExportTraceServiceRequest,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": ExportMetricsServiceRequest,
    "opentelemetry.proto.collector.logs.v1.LogsService": ExportLogsServiceRequest,
}


class GrpcCollector:
    """OTLP/gRPC: the messages as they came, and the credentials of the last."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.credentials: str | None = None
        self._server = grpc.server(ThreadPoolExecutor(1))
        handlers = [
            grpc.method_handlers_generic_handler(
                service,
                {"Export": grpc.unary_unary_rpc_method_handler(self._keep, request.FromString)},
            )
            for service, request in _GRPC.items()
        ]
        self._server.add_generic_rpc_handlers(handlers)
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _keep(self, request: Any, context: Any) -> bytes:
        self.received.append(request)
        self.credentials = dict(context.invocation_metadata()).get("authorization")
        return b""
