"""Does retrieval still find what it should?"""

from deploy.dashboards import names
from deploy.dashboards.page import Dashboard, Variable
from deploy.dashboards.panels import Row, query, stat, timeseries, traces
from deploy.dashboards.promql import mean, quantile, rate, selector
from o11y.telemetry import schema

TOP, EMPTY = schema.VECTOR_TOP_SIMILARITY, schema.VECTOR_EMPTY
DURATION = schema.VECTOR_OPERATION_DURATION
CHOSEN = {schema.LABEL_COLLECTION: '=~"$collection"'}
SEARCHES = CHOSEN | {schema.LABEL_OPERATION: '="search"'}
POOR = 0.3


def mean_over(metric: schema.Metric, hours: str, ago: str = "", chosen: bool = True) -> str:
    """The mean in a time of its own, which can be compared with that of another week."""
    part = f"[{hours}]{f' offset {ago}' if ago else ''}"
    where = CHOSEN if chosen else {}
    total = f"sum(increase({selector(metric, where, '_sum')}{part}))"
    return f"{total} / (sum(increase({selector(metric, where, '_count')}{part})) > 0)"


SHARE_EMPTY = f"{rate(EMPTY, where=CHOSEN)} / {rate(DURATION, where=SEARCHES)}"

DASHBOARD = Dashboard(
    "o11y-retrieval",
    "Retrieval quality",
    "Similarity and distance of what searches find, empty results, and drift against last week.",
    [
        stat(
            "Top similarity",
            "Mean cosine similarity of the best document of each search.",
            "short",
            query(mean(TOP, where=CHOSEN)),
            width=6,
        ),
        stat(
            "Against last week",
            "Mean top similarity of six hours, over that of the same six hours a week before.",
            "percentunit",
            query(f"({mean_over(TOP, '6h')}) / ({mean_over(TOP, '6h', '1w')}) - 1"),
            width=6,
        ),
        stat(
            "Empty searches",
            "Share of searches that found nothing.",
            "percentunit",
            query(SHARE_EMPTY),
            width=6,
            thresholds=[(0.05, "yellow"), (0.2, "red")],
        ),
        stat(
            "Documents",
            "Documents in the collection; replicas share it.",
            "short",
            query(f"max({selector(schema.VECTOR_DOCUMENTS, CHOSEN)})"),
            width=6,
        ),
        Row("Quality"),
        timeseries(
            "Top similarity",
            "Of each search's best document: median and the worst tenth.",
            "short",
            query(quantile(0.5, TOP, where=CHOSEN), "median"),
            query(quantile(0.1, TOP, where=CHOSEN), "worst tenth"),
            limits={"min": 0, "max": 1},
        ),
        timeseries(
            "Drift of the top similarity",
            "The mean of six hours, and of the same six hours a week before.",
            "short",
            query(mean_over(TOP, "6h"), "now"),
            query(mean_over(TOP, "6h", "1w"), "a week before"),
            limits={"min": 0, "max": 1},
        ),
        timeseries(
            "Empty searches",
            "Share of searches that found nothing, by collection.",
            "percentunit",
            query(
                f"{rate(EMPTY, [schema.LABEL_COLLECTION], CHOSEN)}"
                f" / {rate(DURATION, [schema.LABEL_COLLECTION], SEARCHES)}",
                "{{collection}}",
            ),
        ),
        timeseries(
            "Similarity of all documents found",
            "Mean of each rank's: it falls when callers ask for more.",
            "short",
            query(
                mean(schema.VECTOR_SIMILARITY, [schema.LABEL_COLLECTION], CHOSEN),
                "{{collection}}",
            ),
        ),
        timeseries(
            "Distance of all documents found",
            "Mean cosine distance; 1 is unrelated.",
            "short",
            query(
                mean(schema.VECTOR_DISTANCE, [schema.LABEL_COLLECTION], CHOSEN), "{{collection}}"
            ),
        ),
        traces(
            "Poor searches",
            f"Searches whose best document has a similarity below {POOR}, or that found none. "
            "Click an id for the trace.",
            f"{{ span.{schema.TOP_SIMILARITY} < {POOR} || span.{schema.RESULT_COUNT} = 0 }} | "
            f"select(span.{schema.TOP_SIMILARITY}, span.{schema.RESULT_COUNT})",
            width=8,
        ),
        Row("The database"),
        timeseries(
            "Duration of an operation, 95 %",
            "Of twenty operations one takes longer.",
            "s",
            query(
                quantile(0.95, DURATION, [schema.LABEL_OPERATION], CHOSEN),
                "{{operation}}",
                latency=True,
            ),
        ),
        timeseries(
            "Operations",
            "Operations a second, by how they ended.",
            "ops",
            query(
                rate(DURATION, [schema.LABEL_OPERATION, schema.LABEL_STATUS], CHOSEN),
                "{{operation}} {{status}}",
            ),
        ),
        timeseries(
            "Documents",
            "Documents in the collection.",
            "short",
            query(
                f"max by (collection) ({selector(schema.VECTOR_DOCUMENTS, CHOSEN)})",
                "{{collection}}",
            ),
        ),
    ],
    [Variable("collection", "Collection", names.series(schema.VECTOR_DOCUMENTS), "collection")],
    "now-24h",
)
