"""The cost of LLM calls: how much, for whom, and why."""

from deploy.dashboards import names, others
from deploy.dashboards.page import Dashboard, Variable
from deploy.dashboards.panels import Row, instant, query, stat, states, table, timeseries, traces
from deploy.dashboards.promql import increase, quantile, rate, share
from o11y.telemetry import schema

COST, TOKENS, CALLS = schema.OPENAI_COST, schema.OPENAI_TOKENS, schema.OPENAI_API_DURATION
CHOSEN = {schema.LABEL_MODEL: '=~"$model"', schema.LABEL_TENANT: '=~"$tenant"'}
OF_MODEL = {schema.LABEL_MODEL: '=~"$model"'}
CACHED, INPUT = {schema.LABEL_TYPE: '="cached"'}, {schema.LABEL_TYPE: '="input"'}
ALL_INPUT = rate(TOKENS, where=CHOSEN | INPUT)
EXPENSIVE_USD = 0.01

DASHBOARD = Dashboard(
    "o11y-cost",
    "LLM cost and tokens",
    "US dollars and tokens by model, provider and tenant; retries, fallbacks and breakers.",
    [
        stat(
            "USD an hour",
            "What is paid now, for an hour like the last minutes.",
            "currencyUSD",
            query(f"3600 * {rate(COST, where=CHOSEN)}"),
        ),
        stat(
            "USD a call",
            "Mean cost of a call, with all its attempts.",
            "currencyUSD",
            query(f"{rate(COST, where=OF_MODEL)} / {rate(CALLS, where=OF_MODEL)}"),
        ),
        stat(
            "Of the hourly budget",
            "Cost of the last hour, of the budget the alerts hold it against.",
            "percentunit",
            query(f"{increase(COST)} / {others.HOURLY_BUDGET}"),
            thresholds=[(0.8, "yellow"), (1, "red")],
        ),
        stat(
            "Cached input",
            "Share of the input tokens the provider had cached, which cost less.",
            "percentunit",
            query(f"({rate(TOKENS, where=CHOSEN | CACHED)} or 0 * {ALL_INPUT}) / {ALL_INPUT}"),
        ),
        stat(
            "Calls without a price",
            "Attempts a second whose price nobody knows: their cost is in no sum here.",
            "ops",
            query(f"{rate(schema.OPENAI_UNPRICED, where=OF_MODEL)} or vector(0)"),
            thresholds=[(0.001, "yellow")],
        ),
        stat(
            "Attempts running",
            "Attempts at providers at this moment.",
            "short",
            query(f"sum({names.series(schema.OPENAI_RUNNING)})"),
        ),
        Row("US dollars"),
        timeseries(
            "By model",
            "US dollars an hour, by provider and model.",
            "currencyUSD",
            query(
                f"3600 * {rate(COST, [schema.LABEL_PROVIDER, schema.LABEL_MODEL], CHOSEN)}",
                "{{provider}} {{model}}",
            ),
            stacked=True,
        ),
        timeseries(
            "By tenant",
            "US dollars an hour, by tenant (X-Tenant-Id at the gateway).",
            "currencyUSD",
            query(f"3600 * {rate(COST, [schema.LABEL_TENANT], CHOSEN)}", "{{tenant}}"),
            stacked=True,
        ),
        timeseries(
            "A call, by model",
            "Mean cost of a call. It rises with longer prompts and with a dearer model.",
            "currencyUSD",
            query(
                f"{rate(COST, [schema.LABEL_MODEL], OF_MODEL)}"
                f" / {rate(CALLS, [schema.LABEL_MODEL], OF_MODEL)}",
                "{{model}}",
            ),
        ),
        table(
            "Spent today",
            "US dollars in the last 24 hours, by tenant, model and operation.",
            "currencyUSD",
            instant(
                increase(
                    COST,
                    [schema.LABEL_TENANT, schema.LABEL_MODEL, schema.LABEL_OPERATION],
                    CHOSEN,
                    "24h",
                ),
                table=True,
            ),
        ),
        traces(
            "Expensive calls",
            f"Traces with a call of {EXPENSIVE_USD} USD or more, all its attempts together. "
            "Click an id for the trace.",
            f"{{ span.{schema.COST_USD} >= {EXPENSIVE_USD} }} | "
            f"select(span.{schema.COST_USD}, span.{schema.RESPONSE_MODEL}, "
            f"span.{schema.TENANT_ID})",
        ),
        Row("Tokens"),
        timeseries(
            "Tokens by type",
            "Tokens a second; cached, reasoning and audio ones are part of input and output.",
            "short",
            query(rate(TOKENS, [schema.LABEL_TYPE], CHOSEN), "{{type}}"),
        ),
        timeseries(
            "Tokens by model",
            "Input and output tokens a second.",
            "short",
            query(
                rate(
                    TOKENS,
                    [schema.LABEL_MODEL, schema.LABEL_TYPE],
                    CHOSEN | {schema.LABEL_TYPE: '=~"input|output"'},
                ),
                "{{model}} {{type}}",
            ),
            stacked=True,
        ),
        timeseries(
            "Input tokens a call",
            "Half of the calls, and nineteen of twenty, have fewer.",
            "short",
            *(
                query(
                    quantile(
                        share,
                        schema.GEN_AI_INPUT_TOKENS,
                        where={schema.RESPONSE_MODEL: '=~"$model"'},
                    ),
                    legend,
                )
                for share, legend in ((0.5, "median"), (0.95, "95 %"))
            ),
        ),
        Row("Providers"),
        timeseries(
            "Duration of a call, 95 %",
            "By the last provider that was asked, model and how it ended.",
            "s",
            query(
                quantile(
                    0.95,
                    CALLS,
                    [schema.LABEL_PROVIDER, schema.LABEL_MODEL, schema.LABEL_STATUS],
                    OF_MODEL,
                ),
                "{{provider}} {{model}} {{status}}",
                latency=True,
            ),
        ),
        timeseries(
            "First event of a stream, 95 %",
            "How long a reader waits until a streamed answer begins.",
            "s",
            query(
                quantile(
                    0.95,
                    schema.GEN_AI_FIRST_CHUNK,
                    [schema.RESPONSE_MODEL],
                    {schema.RESPONSE_MODEL: '=~"$model"'},
                ),
                "{{gen_ai_response_model}}",
                latency=True,
            ),
        ),
        timeseries(
            "Failed attempts",
            "Share of a provider's attempts that failed.",
            "percentunit",
            query(
                share(
                    schema.HTTP_CLIENT_DURATION,
                    {schema.ERROR_TYPE: f'!~"|{schema.ERROR_CANCELLED}"'},
                    [schema.LABEL_PROVIDER],
                    {schema.LABEL_PROVIDER: '!=""'},
                ),
                "{{provider}}",
            ),
        ),
        timeseries(
            "Retries",
            "Attempts a second repeated at the same provider, by why.",
            "ops",
            query(
                rate(schema.OPENAI_RETRIES, [schema.LABEL_PROVIDER, schema.LABEL_REASON]),
                "{{provider}} {{reason}}",
            ),
        ),
        timeseries(
            "Fallbacks",
            "Calls a second handed on to the next provider, by why.",
            "ops",
            query(
                rate(
                    schema.OPENAI_FALLBACKS,
                    [schema.LABEL_PROVIDER, schema.LABEL_NEXT, schema.LABEL_REASON],
                ),
                "{{provider}} → {{next}} {{reason}}",
            ),
        ),
        states(
            "Circuit breakers",
            "A provider whose breaker is open is left alone.",
            {0: ("closed", "green"), 1: ("half open", "yellow"), 2: ("open", "red")},
            query(f"max by (provider) ({names.series(schema.OPENAI_CIRCUIT)})", "{{provider}}"),
        ),
    ],
    [
        Variable("model", "Model", names.series(COST), "model"),
        Variable("tenant", "Tenant", names.series(COST), "tenant"),
    ],
    "now-6h",
)
