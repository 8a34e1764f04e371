"""What each request may hold: lengths, ranges, and the field an error is about."""

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.contracts import ChatRequest, EmbedRequest, PipelineRequest, SearchRequest
from o11y.contracts import Body, LocalInferenceRequest
from vector_svc.requests import StoreRequest, VectorSearchRequest

STORE: dict[str, Any] = {"documents": ["a"], "embeddings": [[1.0]], "embedding_model": "m"}
FIND: dict[str, Any] = {"embedding": [1.0], "embedding_model": "m"}
LONG = "a" * 100_001


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (ChatRequest, {"message": "a"}),
        (ChatRequest, {"message": "a", "temperature": 0, "max_tokens": 1, "stream": False}),
        (ChatRequest, {"message": "a", "temperature": 2, "user_id": "a b", "session_id": "~"}),
        (EmbedRequest, {"texts": ["a"] * 256}),
        (EmbedRequest, {"texts": ["a"], "metadata": [{"n": 1, "t": True}], "ids": ["1"]}),
        (SearchRequest, {"query": "a", "n_results": 100, "filter_metadata": {"n": {"$ne": 1}}}),
        (LocalInferenceRequest, {"prompt": "a", "max_length": 512, "num_sequences": 5}),
        (PipelineRequest, {"query": "a", "n_results": 1, "max_tokens": 1}),
        (StoreRequest, STORE),
        (VectorSearchRequest, FIND),
    ],
)
def test_what_lies_within_the_limits_is_accepted(model: type[Body], given: dict[str, Any]) -> None:
    assert model.model_validate(given).model_dump(exclude_unset=True) == given


@pytest.mark.parametrize(
    ("model", "given", "field"),
    [
        (ChatRequest, {}, "message"),
        (ChatRequest, {"message": ""}, "message"),
        (ChatRequest, {"message": LONG}, "message"),
        (ChatRequest, {"message": "a", "temperature": 2.1}, "temperature"),
        (ChatRequest, {"message": "a", "temperature": -0.1}, "temperature"),
        (ChatRequest, {"message": "a", "temperature": float("nan")}, "temperature"),
        (ChatRequest, {"message": "a", "max_tokens": 0}, "max_tokens"),
        (ChatRequest, {"message": "a", "stream": "perhaps"}, "stream"),
        (ChatRequest, {"message": "a", "user_id": ""}, "user_id"),
        (ChatRequest, {"message": "a", "user_id": "é"}, "user_id"),
        (ChatRequest, {"message": "a", "session_id": "a\nb"}, "session_id"),
        (ChatRequest, {"message": "a", "session_id": "a" * 129}, "session_id"),
        (ChatRequest, {"message": "a", "mesage": "b"}, "mesage"),
        (ChatRequest, {"message": "a", "model": "\ud800"}, "model"),
        (EmbedRequest, {"texts": []}, "texts"),
        (EmbedRequest, {"texts": ["a"] * 257}, "texts"),
        (EmbedRequest, {"texts": ["a", ""]}, "texts"),
        (EmbedRequest, {"texts": ["a"], "metadata": [{"n": {}}]}, "metadata"),
        (EmbedRequest, {"texts": ["a"], "metadata": [{"n": float("inf")}]}, "metadata"),
        (SearchRequest, {"query": "a", "n_results": 0}, "n_results"),
        (SearchRequest, {"query": "a", "n_results": 101}, "n_results"),
        (SearchRequest, {"query": "a", "filter_metadata": []}, "filter_metadata"),
        (SearchRequest, {"query": "a", "filter_metadata": {"n": float("nan")}}, "filter_metadata"),
        (LocalInferenceRequest, {"prompt": "a", "max_length": 513}, "max_length"),
        (LocalInferenceRequest, {"prompt": "a", "num_sequences": 6}, "num_sequences"),
        (LocalInferenceRequest, {"prompt": "a", "top_p": 0}, "top_p"),
        (LocalInferenceRequest, {"prompt": "a", "top_k": 0}, "top_k"),
        (LocalInferenceRequest, {"prompt": "a", "seed": 2**63}, "seed"),
        (PipelineRequest, {"query": "a", "max_tokens": 513}, "max_tokens"),
        (StoreRequest, {**STORE, "embeddings": [[float("nan")]]}, "embeddings"),
        (VectorSearchRequest, {**FIND, "embedding": []}, "embedding"),
        (VectorSearchRequest, {**FIND, "embedding_model": ""}, "embedding_model"),
    ],
)
def test_an_error_is_about_the_field_at_fault(
    model: type[Body], given: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(given)
    assert {error["loc"][0] for error in caught.value.errors()} == {field}


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (EmbedRequest, {"texts": ["a", "b"], "ids": ["1"]}, "ids has 1 entries for 2 texts"),
        (EmbedRequest, {"texts": ["a"], "metadata": []}, "metadata has 0 entries for 1 texts"),
        (StoreRequest, {**STORE, "ids": ["1", "2"]}, "ids has 2 entries for 1 documents"),
        (StoreRequest, {**STORE, "documents": ["a", "b"]}, "embeddings has 1 entries for 2"),
        (
            StoreRequest,
            {**STORE, "documents": ["a", "b"], "embeddings": [[1.0], [1.0, 2.0]]},
            "embeddings have different lengths",
        ),
    ],
)
def test_lists_that_belong_together_are_equally_long(
    model: type[Body], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        model.model_validate(given)
