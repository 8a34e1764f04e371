"""Spending: by whom and on what, what is left of budgets, and whether all is written down."""

from deploy.dashboards import names, others
from deploy.dashboards.page import Dashboard, Variable
from deploy.dashboards.panels import Row, columns, query, stat, states, timeseries
from deploy.dashboards.promql import Where, increase, maximum, rate, selector, share, summed
from o11y.telemetry import schema

COST = schema.OPENAI_COST
TENANT, KEY, PERIOD = schema.LABEL_TENANT, schema.LABEL_KEY, schema.LABEL_PERIOD
OWNER, BUDGET = [TENANT, KEY], [TENANT, KEY, PERIOD]
PAID_BY = [schema.LABEL_PROVIDER, schema.LABEL_MODEL]

ALL = "_all"
"""The key that stands for all keys of a tenant."""

OF_TENANT = {TENANT: '=~"$tenant"'}
TENANTS = OF_TENANT | {KEY: f'="{ALL}"'}
KEYS = OF_TENANT | {KEY: f'!="{ALL}", {names.label(KEY)}=~"$key"'}
CHOSEN = OF_TENANT | {KEY: '=~"$key"'}

WEEK = f"{others.TENANT_DAY}[7d:1d] offset 1d"
"""Cost of the seven calendar days (UTC) before the last 24 hours: a subquery is asked at multiples
of its step, and midnight is one.
"""
MEDIAN = f"quantile_over_time(0.5, {WEEK})"

DAY_SECONDS = 86400
TODAY = f"time() % {DAY_SECONDS}"
PACE_SECONDS = f"scalar(clamp_min(vector({TODAY}), 3600))"
"""Seconds of today (UTC), an hour at least: before, a call more or less would make any pace."""
ENDS = {
    "day": f"{DAY_SECONDS} - {TODAY}",
    "month": f"{DAY_SECONDS} * (1 + scalar(days_in_month() - day_of_month())) - {TODAY}",
    "total": "Inf",
}
"""Seconds until a budget is filled again, by its period."""


def spent(period: str, where: Where, by: list[str]) -> str:
    return maximum(schema.SPEND, by, {**where, PERIOD: f'="{period}"'})


def used(where: Where) -> str:
    """The part of each budget that is spent; one of 0 USD, which lets nobody in, has none."""
    limit = maximum(schema.BUDGET_LIMIT, BUDGET, where)
    return f"{maximum(schema.SPEND, BUDGET, where)} / ({limit} > 0)"


def reserved(where: Where) -> str:
    """US dollars that running calls may cost, for each budget they are held against."""
    held = maximum(schema.BUDGET_RESERVED, OWNER, where)
    limit = maximum(schema.BUDGET_LIMIT, BUDGET, where)
    return f"0 * {limit} + on ({', '.join(OWNER)}) group_left () {held}"


def runs_out(where: Where) -> str:
    """Seconds until a budget is used up at today's pace, where it is before it is filled again."""
    pace = f"({spent('day', where, OWNER)} / {PACE_SECONDS} > 0)"
    per_owner = f"/ on ({', '.join(OWNER)}) group_left () {pace}"
    left = {
        period: maximum(schema.BUDGET_REMAINING, BUDGET, {**where, PERIOD: f'="{period}"'})
        for period in ENDS
    }
    return " or ".join(
        f"(clamp_min({left[period]}, 0) {per_owner} < {end})" for period, end in ENDS.items()
    )


DASHBOARD = Dashboard(
    "o11y-spending",
    "Who spends",
    "US dollars by tenant, key and model, budgets and when they run out, refused calls, and the "
    "ledger. A day is one of UTC.",
    [
        stat(
            "Today",
            "Spent since midnight (UTC), as the ledger has it.",
            "currencyUSD",
            query(summed(spent("day", TENANTS, [TENANT]))),
        ),
        stat(
            "This month",
            "Spent since the first of the month (UTC), as the ledger has it.",
            "currencyUSD",
            query(summed(spent("month", TENANTS, [TENANT]))),
        ),
        stat(
            "Nearest to its end",
            "The part that is spent of the budget of which most is; its name is in the table.",
            "percentunit",
            query(f"max({used(CHOSEN)})"),
            thresholds=[(0.8, "yellow"), (1, "red")],
        ),
        stat(
            "Estimated",
            "Share of the cost of 24 hours whose tokens no provider told, as of cut streams.",
            "percentunit",
            query(share(COST, {schema.LABEL_ESTIMATED: '="true"'}, where=OF_TENANT, over="24h")),
            thresholds=[(0.05, "yellow")],
        ),
        stat(
            "Refused this hour",
            "Calls refused for their key, a limit or a budget in the last hour, of all tenants.",
            "short",
            query(f"{increase(schema.ADMISSION_REFUSED)} or vector(0)"),
        ),
        stat(
            "The ledger is behind",
            "Age of the oldest row that waits for the database; nothing of it is lost.",
            "s",
            query(maximum(schema.LEDGER_LAG)),
            thresholds=[(10, "yellow"), (60, "red")],
        ),
        Row("By tenant"),
        timeseries(
            "Today, by tenant",
            "Spent since midnight (UTC), with all keys of the tenant.",
            "currencyUSD",
            query(spent("day", TENANTS, [TENANT]), "{{tenant}}"),
            stacked=True,
        ),
        columns(
            "Tenants",
            "Spent today, in this month (UTC) and in all.",
            *(
                (head, "currencyUSD", spent(period, TENANTS, [TENANT]))
                for head, period in (("Month", "month"), ("Today", "day"), ("In all", "total"))
            ),
            width=8,
        ),
        timeseries(
            "A day beside the week",
            "Cost of the last 24 hours, as a multiple of the median day of the week before.",
            "short",
            query(
                f'({others.TENANT_DAY}{{{names.label(TENANT)}=~"$tenant"}} / ({MEDIAN} > 0))',
                "{{tenant}}",
            ),
            thresholds=[(5, "red")],
        ),
        Row("By key"),
        timeseries(
            "Today, by key",
            "Spent since midnight (UTC).",
            "currencyUSD",
            query(spent("day", KEYS, OWNER), "{{tenant}} {{key}}"),
            width=12,
            stacked=True,
        ),
        columns(
            "Keys",
            "Spent today, in this month (UTC) and in all.",
            *(
                (head, "currencyUSD", spent(period, KEYS, OWNER))
                for head, period in (("Month", "month"), ("Today", "day"), ("In all", "total"))
            ),
        ),
        Row("By model"),
        columns(
            "Models",
            "Cost of the last 24 hours and 30 days, by provider and model.",
            ("30 days", "currencyUSD", increase(COST, PAID_BY, OF_TENANT, "30d")),
            ("24 hours", "currencyUSD", increase(COST, PAID_BY, OF_TENANT, "24h")),
        ),
        timeseries(
            "Estimated, by model",
            "Share of an hour's cost whose tokens no provider told.",
            "percentunit",
            query(
                share(COST, {schema.LABEL_ESTIMATED: '="true"'}, PAID_BY, OF_TENANT, "1h"),
                "{{provider}} {{model}}",
            ),
            width=12,
            limits={"min": 0, "max": 1},
        ),
        Row("Budgets"),
        columns(
            "Budgets",
            f"Of keys, and of tenants (key {ALL}). Reserved is what running calls may cost. A "
            "budget that lasts until it is filled again does not run out.",
            ("Spent", "percentunit", used(CHOSEN)),
            ("Limit", "currencyUSD", maximum(schema.BUDGET_LIMIT, BUDGET, CHOSEN)),
            ("Remaining", "currencyUSD", maximum(schema.BUDGET_REMAINING, BUDGET, CHOSEN)),
            ("Reserved", "currencyUSD", reserved(CHOSEN)),
            ("Runs out at today's pace in", "s", runs_out(CHOSEN)),
            width=24,
        ),
        timeseries(
            "Spent of budgets",
            "Calls are refused when the most they can cost isn't left: somewhat before the end.",
            "percentunit",
            query(used(CHOSEN), "{{tenant}} {{key}} {{period}}"),
            width=12,
            thresholds=[(0.8, "yellow"), (1, "red")],
        ),
        timeseries(
            "Reserved by running calls",
            "The most that calls can cost which run now, and are held against a budget.",
            "currencyUSD",
            query(maximum(schema.BUDGET_RESERVED, OWNER, CHOSEN), "{{tenant}} {{key}}"),
            width=12,
        ),
        Row("Refused calls"),
        timeseries(
            "Refused, by why",
            "Calls a second that were refused for their key, a limit or a budget, of all tenants.",
            "ops",
            query(
                rate(schema.ADMISSION_REFUSED, ["service_name", schema.LABEL_REASON]),
                "{{service_name}} {{reason}}",
            ),
            width=16,
            stacked=True,
        ),
        states(
            "Store of the limits",
            "Whether the gateway's replicas reach what counts their calls.",
            {0: ("away", "red"), 1: ("answers", "green")},
            query(
                f"min by (instance) ({names.series(schema.RATE_LIMIT_STORE_UP)})", "{{instance}}"
            ),
        ),
        Row("The ledger"),
        timeseries(
            "Rows that wait",
            "Rows in the journal on disk which the database hasn't got yet, by replica.",
            "short",
            query(maximum(schema.LEDGER_QUEUE, ["instance"]), "{{instance}}"),
        ),
        timeseries(
            "Lag",
            "Age of the oldest row that waits, by replica.",
            "dtdurations",
            query(maximum(schema.LEDGER_LAG, ["instance"]), "{{instance}}"),
            thresholds=[(60, "red")],
        ),
        timeseries(
            "Rows recovered",
            "In the last hour, by the replica that wrote down what a process had left that ended.",
            "short",
            query(increase(schema.LEDGER_RECOVERED, ["instance"]), "{{instance}}"),
        ),
    ],
    [
        Variable("tenant", "Tenant", names.series(COST), "tenant"),
        Variable("key", "Key", selector(schema.SPEND, OF_TENANT), "key"),
    ],
    "now-24h",
)
