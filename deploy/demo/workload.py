"""The calls of each scenario.

A scenario is a list of strands: the calls of a strand follow each other, strands run side by side.
"""

from collections.abc import Callable

from deploy.demo import requests
from deploy.demo.calls import Call
from deploy.demo.judges import openai_error, problem

Strands = list[list[Call]]

LONGEST_PROMPT_WORDS = 20_000
"""Words of the longest text the gateway takes, at five characters a word."""

TRACING = "How does a trace follow a request across services?"


def health() -> Strands:
    return [[requests.health()], [requests.stats()], [requests.metrics()]]


def chat() -> Strands:
    return [
        [
            requests.chat("What is a trace?", "alice", "alice-1", 32, 0.2),
            requests.chat("And what is a span?", "alice", "alice-1", 32, 0.2),
        ],
        [requests.chat("Explain what an embedding is.", "bob", "bob-1", 48)],
        [requests.chat("Name three uses of a vector database.", "bob", "bob-2", 40, 1.0)],
        [requests.chat("Why do GPUs make neural networks fast?", "carol", "carol-1", 24, 0.0)],
        [requests.chat("Write a sentence about observability.", "carol", "carol-1", 24, 1.2)],
    ]


def embed() -> Strands:
    notes = [
        "The demo of this system sends calls of every kind and shows what they cost.",
        "One call through the whole pipeline is one trace with spans of four services.",
    ]
    ids = [f"demo-note-{number}" for number, _ in enumerate(notes, 1)]
    quote = ["What the demo stores twice is stored once."]
    passing = [f"Text {number} is embedded and not stored." for number in range(8)]
    return [
        [
            requests.embed(notes, "alice", ids=ids, topic="demo"),
            requests.embed(notes, "alice", ids=ids, topic="demo", again=True),
        ],
        [
            requests.embed(quote, "bob", topic="demo"),
            requests.embed(quote, "bob", topic="demo", again=True),
        ],
        [requests.embed(passing, "carol", store=False)],
    ]


def search() -> Strands:
    index = "Which index finds nearest neighbours fast?"
    labels = "How are labels kept from exploding?"
    return [
        [requests.search(TRACING, "alice", topic="observability", about="trac", found=5)],
        [requests.search(TRACING, "bob", 1, about="trac", found=1)],
        [requests.search(index, "bob", 10, topic="vector-search", found=10)],
        [requests.search(labels, "carol", 3, topic="observability", found=3)],
        [requests.search(labels, "carol", topic="no such topic", found=0)],
    ]


def local() -> Strands:
    return [
        [requests.local("Distributed tracing is", "alice", 48, 0.3)],
        [requests.local("A vector database", "bob", 32, 0.0)],
        [requests.local("Once upon a time", "bob", 16, 1.2)],
        [requests.local("The three signals of observability are", "carol", 24, texts=2)],
        [requests.local("A GPU is", "carol", 16)],
    ]


def errors(window: int) -> Strands:
    """Calls that must be refused. `window` is the local model's, in tokens: a prompt exceeds it,
    unless the gateway takes no text that long.
    """
    hello = {"message": "Hello"}
    unknown = {"model": "no-such-model", "messages": [{"role": "user", "content": "Hello"}]}
    long = {"prompt": "word " * window, "max_length": 16}
    too_long = Call("/local-inference", problem(422, "prompt", rf"\d+ tokens.*\b{window}\b"), long)
    calls = [
        Call("/chat", problem(422, "message"), {"message": ""}),
        Call("/chat", problem(422, "temperature"), hello | {"temperature": 9}),
        Call("/chat", problem(404, "model"), hello | {"model": "no-such-model"}),
        Call("/search", problem(422, "n_results"), {"query": "Hello", "n_results": 0}),
        *([too_long] if window <= LONGEST_PROMPT_WORDS else []),
        Call("/no-such-path", problem(404), {}),
        Call("/chat", problem(422, "body"), content=b'{"message": "Hello'),
        Call("/v1/chat/completions", openai_error(404, "model_not_found", "model"), unknown),
    ]
    return [[call] for call in calls]


def pipeline() -> Strands:
    """Calls one after the other; the last has every stage, because its trace is shown."""
    sampling = "What is tail sampling?"
    return [
        [
            requests.pipeline("What is overfitting?", "bob", "bob-3", use_context=False),
            requests.pipeline("What does a KV cache save?", "bob", "bob-3", store=False),
            requests.pipeline(sampling, "alice", "alice-2", as_body=True, n_results=5),
            requests.pipeline(TRACING, "alice", "alice-2"),
        ]
    ]


def mixed() -> list[Call]:
    """One round of the load: a bit of everything, and nothing that stays in the collection."""
    return [
        requests.chat("What is a trace?", "dave", "dave-1", 24),
        requests.search("What is an error budget?", "dave", about="budget"),
        requests.local("Observability is", "erin", 16),
        requests.embed(["A text that is embedded and not stored."], "erin", store=False),
        requests.search(TRACING, "erin", topic="observability", about="trac"),
        requests.pipeline("What is a histogram?", "dave", "dave-2", store=False, max_tokens=16),
        Call("/chat", problem(422, "message"), {"message": ""}),
        requests.local("A vector is", "erin", 24, texts=2),
    ]


SCENARIOS: dict[str, Callable[[int], Strands]] = {
    "chat": lambda _: chat(),
    "embed": lambda _: embed(),
    "search": lambda _: search(),
    "local": lambda _: local(),
    "errors": errors,
    "pipeline": lambda _: pipeline(),
}
"""Scenarios by name, made for the local model's window in tokens, which one call exceeds."""
