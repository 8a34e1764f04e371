import asyncio
import random
from pathlib import Path

import pytest
from chromadb.api import ClientAPI

from o11y.web.problems import Problem
from vector_svc.app import connect
from vector_svc.collection import Binding, Connect, VectorCollection, document_id
from vector_svc.settings import Settings

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def in_folder(folder: Path) -> Connect:
    return connect(Settings(chroma_persist_directory=folder))


@pytest.fixture
def collection(tmp_path: Path) -> VectorCollection:
    return VectorCollection(in_folder(tmp_path), "documents")


async def test_an_empty_collection_belongs_to_nobody_and_finds_nothing(
    collection: VectorCollection,
) -> None:
    assert await collection.binding() is None
    assert await collection.count() == 0
    assert await collection.search(EAST, "any", 3, None) == []


async def test_the_first_store_binds_the_collection_to_its_model(
    collection: VectorCollection,
) -> None:
    await collection.store(["a"], [EAST], "model-a", None, None)
    assert await collection.binding() == Binding("model-a", 2)


@pytest.mark.parametrize(
    ("model", "vector"), [("model-b", EAST), ("model-a", [1.0, 0.0, 0.0])], ids=["model", "length"]
)
async def test_vectors_of_another_kind_never_mix(
    collection: VectorCollection, model: str, vector: list[float]
) -> None:
    await collection.store(["a"], [EAST], "model-a", None, None)
    with pytest.raises(Problem, match="holds vectors of model-a"):
        await collection.store(["b"], [vector], model, None, None)
    with pytest.raises(Problem, match="holds vectors of model-a") as refused:
        await collection.search(vector, model, 1, None)
    assert refused.value.status == 409
    assert await collection.count() == 1


async def test_similarity_is_the_cosine_whatever_the_length(collection: VectorCollection) -> None:
    await collection.store(["east", "north", "west"], [[5.0, 0.0], NORTH, WEST], "m", None, None)
    found = await collection.search([2.0, 0.0], "m", 3, None)
    assert [row.document for row in found] == ["east", "north", "west"]
    assert [row.similarity for row in found] == pytest.approx([1, 0, -1], abs=1e-6)
    assert [row.distance for row in found] == pytest.approx([0, 1, 2], abs=1e-6)


async def test_rounding_leaves_no_distance_that_cannot_be(collection: VectorCollection) -> None:
    dice = random.Random(20)
    vectors = [[dice.gauss(0, 1) for _ in range(384)] for _ in range(20)]
    opposite = [[-number for number in vector] for vector in vectors]
    names = [str(number) for number in range(40)]
    await collection.store(names, [*vectors, *opposite], "m", None, None)
    for vector in vectors:
        found = await collection.search(vector, "m", 40, None)
        assert all(0 <= row.distance <= 2 and -1 <= row.similarity <= 1 for row in found)
        assert (found[0].distance, found[-1].distance) == pytest.approx((0, 2), abs=1e-6)


async def test_the_same_text_is_the_same_document(collection: VectorCollection) -> None:
    first, added = await collection.store(["a", "a", "b"], [EAST, EAST, NORTH], "m", None, None)
    assert (first, added) == ([document_id("a"), document_id("a"), document_id("b")], 2)
    again, added = await collection.store(["a"], [EAST], "m", None, None)
    assert (again, added) == ([document_id("a")], 0)
    assert await collection.count() == 2


async def test_a_given_id_replaces_its_document(collection: VectorCollection) -> None:
    await collection.store(["old"], [EAST], "m", None, ["id-1"])
    await collection.store(["new"], [NORTH], "m", None, ["id-1"])
    (found,) = await collection.search(NORTH, "m", 5, None)
    assert (found.document, found.id) == ("new", "id-1")
    assert found.similarity == pytest.approx(1)


@pytest.mark.parametrize(
    ("where", "documents"),
    [
        (None, {"a", "b", "c"}),
        ({}, {"a", "b", "c"}),
        ({"topic": "x"}, {"a", "b"}),
        ({"topic": "x", "year": 2}, {"b"}),
        ({"year": {"$gte": 2}}, {"b", "c"}),
        ({"topic": {"$ne": "x"}}, {"c"}),
        ({"kind": {"$ne": "query"}}, {"a", "b", "c"}),
        ({"$or": [{"year": 1}, {"topic": "y"}]}, {"a", "c"}),
    ],
)
async def test_metadata_filters(
    collection: VectorCollection, where: dict[str, object] | None, documents: set[str]
) -> None:
    metadata: list[dict[str, str | int | float | bool]] = [
        {"topic": "x", "year": 1},
        {"topic": "x", "year": 2},
        {"topic": "y", "year": 3},
    ]
    await collection.store(["a", "b", "c"], [EAST, NORTH, WEST], "m", metadata, None)
    found = await collection.search(EAST, "m", 10, where)
    assert {row.document for row in found} == documents
    assert all(set(row.metadata) == {"topic", "year"} for row in found)


async def test_a_filter_nobody_can_read_names_its_field(collection: VectorCollection) -> None:
    await collection.store(["a"], [EAST], "m", None, None)
    with pytest.raises(Problem) as refused:
        await collection.search(EAST, "m", 1, {"topic": {"$like": "x"}})
    assert refused.value.status == 422
    assert refused.value.errors[0]["field"] == "filter_metadata"


async def test_what_is_stored_is_there_for_the_next_process(tmp_path: Path) -> None:
    chroma = in_folder(tmp_path)
    await VectorCollection(chroma, "documents").store(["a"], [EAST], "m", None, None)
    other = VectorCollection(chroma, "documents")
    assert await other.binding() == Binding("m", 2)
    assert await other.count() == 1


# Somebody else changes what Chroma has


async def removed(folder: Path) -> None:
    """Remove the collection, with another client than the one that knows it."""
    client = await in_folder(folder)()
    assert isinstance(client, ClientAPI)
    client.delete_collection("documents")


async def test_a_collection_that_was_removed_is_empty_and_made_anew(
    collection: VectorCollection, tmp_path: Path
) -> None:
    await collection.store(["a", "b"], [EAST, NORTH], "model-a", None, None)
    await removed(tmp_path)
    assert await collection.search(EAST, "model-a", 3, None) == []
    assert await collection.search(EAST, "model-a", 3, {"topic": "x"}) == []
    assert await collection.count() == 0
    assert await collection.binding() is None
    _, added = await collection.store(["b"], [[0.0, 1.0, 0.0]], "model-b", None, None)
    assert added == 1
    assert await collection.binding() == Binding("model-b", 3)
    [found] = await collection.search([0.0, 1.0, 0.0], "model-b", 3, None)
    assert found.document == "b"


@pytest.mark.parametrize("first", ["store", "search", "count", "binding"])
async def test_a_collection_that_was_made_anew_is_another_one(
    first: str, collection: VectorCollection, tmp_path: Path
) -> None:
    await collection.store(["a", "b"], [EAST, NORTH], "model-a", None, None)
    await removed(tmp_path)
    await VectorCollection(in_folder(tmp_path), "documents").store(
        ["c"], [WEST], "model-b", None, None
    )
    match first:
        case "store":
            with pytest.raises(Problem, match="holds vectors of model-b"):
                await collection.store(["d"], [EAST], "model-a", None, None)
        case "search":
            [found] = await collection.search(WEST, "model-b", 3, None)
            assert found.document == "c"
        case "count":
            assert await collection.count() == 1
        case "binding":
            assert await collection.binding() == Binding("model-b", 2)


async def test_many_stores_into_a_collection_that_was_removed_make_one(
    collection: VectorCollection, tmp_path: Path
) -> None:
    await collection.store(["a"], [EAST], "m", None, None)
    await removed(tmp_path)
    texts = [str(number) for number in range(8)]
    stored = [collection.store([text], [NORTH], "m", None, None) for text in texts]
    assert [added for _, added in await asyncio.gather(*stored)] == [1] * 8
    assert await collection.count() == 8
