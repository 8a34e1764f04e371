"""Is the pipeline slow or wrong, and where: the first page of whoever is called."""

from deploy.dashboards import names, others
from deploy.dashboards.page import Dashboard, Variable
from deploy.dashboards.panels import Row, logs, query, service_graph, stat, timeseries, traces
from deploy.dashboards.promql import mean, quantile, rate, share
from o11y.telemetry import schema

SERVER = schema.HTTP_SERVER_DURATION
CALLS = schema.HTTP_CLIENT_DURATION
STAGE = schema.PIPELINE_STAGE_DURATION
CHOSEN = {"service_name": '=~"$service"'}
FAILED = {schema.HTTP_STATUS: '=~"5.."'}
PIPELINE = {schema.HTTP_ROUTE: '="/full-pipeline"'}
EDGE = {"service_name": '="gateway"'}
SLOW = "5s"
"""From here on a call counts as slow; the Collector keeps the trace of each."""

DASHBOARD = Dashboard(
    "o11y-pipeline",
    "Pipeline",
    "Rate, errors and duration of every service, the stages of a pipeline call, and the traces "
    "that prove it.",
    [
        stat(
            "Requests",
            "Requests that the gateway answers a second.",
            "reqps",
            query(rate(SERVER, where=EDGE)),
        ),
        stat(
            "Failed",
            "Share of the gateway's requests answered with 5xx. Left callers are no failures.",
            "percentunit",
            query(share(SERVER, FAILED, where=EDGE)),
            thresholds=[(0.001, "yellow"), (0.01, "red")],
        ),
        stat(
            "Pipeline calls, median",
            "Half of the pipeline calls take less.",
            "s",
            query(quantile(0.5, SERVER, where=EDGE | PIPELINE), latency=True),
        ),
        stat(
            "Pipeline calls, 95 %",
            "Of twenty pipeline calls one takes longer.",
            "s",
            query(quantile(0.95, SERVER, where=EDGE | PIPELINE), latency=True),
            thresholds=[(5, "yellow"), (10, "red")],
        ),
        stat(
            "Being answered",
            "Requests under way at this moment, in all services.",
            "short",
            query(f"sum({names.series(schema.HTTP_SERVER_ACTIVE)})"),
        ),
        stat(
            "Spent this hour",
            "US dollars paid to LLM providers in the last hour.",
            "currencyUSD",
            query(f"sum(increase({names.series(schema.OPENAI_COST)}[1h]))"),
        ),
        Row("Rate, errors, duration"),
        timeseries(
            "Requests by route",
            "Requests a second, by service and route.",
            "reqps",
            query(
                rate(SERVER, ["service_name", schema.HTTP_ROUTE], CHOSEN),
                "{{service_name}} {{http_route}}",
            ),
        ),
        timeseries(
            "Errors by route",
            "Share of requests answered with 4xx or 5xx, by service, route and error.type.",
            "percentunit",
            query(
                rate(
                    SERVER,
                    ["service_name", schema.HTTP_ROUTE, schema.ERROR_TYPE],
                    CHOSEN | {schema.HTTP_STATUS: '=~"4..|5.."'},
                )
                + " / on (service_name, http_route) group_left () "
                + rate(SERVER, ["service_name", schema.HTTP_ROUTE], CHOSEN),
                "{{service_name}} {{http_route}} {{error_type}}",
            ),
        ),
        timeseries(
            "Duration by route, 95 %",
            "Until the last byte of the answer; of twenty requests one takes longer. "
            "A dot is a request: click it for its trace, if that was kept.",
            "s",
            query(
                quantile(0.95, SERVER, ["service_name", schema.HTTP_ROUTE], CHOSEN),
                "{{service_name}} {{http_route}}",
                latency=True,
            ),
        ),
        Row("Stages of a pipeline call"),
        timeseries(
            "Where the time goes",
            "Mean seconds a call spends in each stage. The first two stages run at once.",
            "s",
            query(mean(STAGE, [schema.LABEL_STAGE]), "{{stage}}", latency=True),
            stacked=True,
        ),
        timeseries(
            "Stage duration, 95 %",
            "Of twenty calls one spends longer in the stage.",
            "s",
            query(quantile(0.95, STAGE, [schema.LABEL_STAGE]), "{{stage}}", latency=True),
        ),
        timeseries(
            "Stages that failed",
            "Share of a stage's runs that ended with an error. The other stages go on without it.",
            "percentunit",
            query(
                share(STAGE, {schema.LABEL_STATUS: '="error"'}, [schema.LABEL_STAGE]),
                "{{stage}}",
            ),
        ),
        Row("Hops"),
        timeseries(
            "Calls to the services behind, 95 %",
            "Duration of the gateway's attempts, by path and replica.",
            "s",
            query(
                quantile(0.95, CALLS, [schema.URL_TEMPLATE, schema.SERVER_ADDRESS]),
                "{{url_template}} at {{server_address}}",
                latency=True,
            ),
        ),
        timeseries(
            "Attempts that failed",
            "Attempts a second without a good answer, by path and why.",
            "reqps",
            query(
                rate(
                    CALLS,
                    [schema.URL_TEMPLATE, schema.ERROR_TYPE],
                    {schema.ERROR_TYPE: '!=""'},
                ),
                "{{url_template}} {{error_type}}",
            ),
        ),
        timeseries(
            "Spans by service",
            "Spans a second before sampling, which the Collector counts.",
            "short",
            query(
                f"sum by (service_name, span_kind) (rate({others.SPAN_CALLS}[$__rate_interval]))",
                "{{service_name}} {{span_kind}}",
            ),
        ),
        Row("Traces and log lines"),
        traces(
            "Failed calls",
            "The newest calls with an error in the gateway. Click an id for the trace.",
            f'{{ resource.service.name = "gateway" && kind = server && span.{schema.ERROR_TYPE}'
            ' != "" }',
        ),
        traces(
            "Slow calls",
            f"Calls that took {SLOW} or longer. Click an id for the trace.",
            f'{{ resource.service.name = "gateway" && kind = server && duration >= {SLOW} }}',
        ),
        service_graph("Who calls whom", "Requests a second and failures between the services."),
        logs(
            "Warnings and errors",
            "Log lines of all services; open one for its trace.",
            '{service_name=~"$service"} | detected_level=~"warn|error"',
            width=12,
        ),
    ],
    [Variable("service", "Service", f"{names.series(SERVER)}_count", "service_name")],
)
