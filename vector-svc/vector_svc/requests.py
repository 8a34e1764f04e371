"""The requests of vector-svc, and what their fields may be."""

from typing import Any, Self

from pydantic import Field, model_validator

from o11y.contracts import (
    MAX_RESULTS,
    MAX_TEXTS,
    Body,
    Identity,
    ModelName,
    NewMetadata,
    Text,
    Vector,
)


class StoreRequest(Body):
    """Documents with their vectors; equal documents without ids get equal ids."""

    documents: list[Text] = Field(min_length=1, max_length=MAX_TEXTS)
    embeddings: list[Vector] = Field(min_length=1, max_length=MAX_TEXTS)
    embedding_model: ModelName
    metadata: list[NewMetadata] | None = None
    ids: list[Identity] | None = None

    @model_validator(mode="after")
    def one_a_document(self) -> Self:
        given = (("embeddings", self.embeddings), ("metadata", self.metadata), ("ids", self.ids))
        for name, values in given:
            if values is not None and len(values) != len(self.documents):
                raise ValueError(
                    f"{name} has {len(values)} entries for {len(self.documents)} documents"
                )
        if len({len(vector) for vector in self.embeddings}) > 1:
            raise ValueError("embeddings have different lengths")
        return self


class VectorSearchRequest(Body):
    """`caller_filters` when the gateway's caller chose the filter: only they can say whether it is
    right that nothing is found.
    """

    embedding: Vector
    embedding_model: ModelName
    n_results: int = Field(5, ge=1, le=MAX_RESULTS)
    filter_metadata: dict[str, Any] | None = None
    caller_filters: bool = False
