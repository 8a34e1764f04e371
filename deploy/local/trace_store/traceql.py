"""The part of TraceQL that searches support: one spanset selector `{ ... }`, turned into SQL.

Follows grafana.com/docs/tempo/latest/traceql: a value that is missing or of another type never
matches, a regular expression matches the whole value, an array matches by any of its elements.
"""

import re

INTRINSICS = ("name", "status", "kind", "duration", "rootName", "rootServiceName", "trace:id")
KEYWORDS = {
    "status": ("unset", "ok", "error"),
    "kind": ("unspecified", "internal", "server", "client", "producer", "consumer"),
}
COLUMNS = {"span": "attributes", "resource": "resource_attributes", "": "all_attributes"}
TYPES = {str: "('text')", bool: "('true', 'false')"}
OPERATORS = {"=~": "REGEXP", "!~": "NOT REGEXP"}  # the others are SQL's own
UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
QUOTED = r'"(?:[^"\\]|\\.)*"'
COMPARISON = re.compile(
    rf"""(?P<field>[a-zA-Z.](?:{QUOTED}|[^\s(){{}}=~!<>&|^,"`])*)\s*
    (?P<operator>[=!]~|[!<>]=|[=<>])\s*
    (?P<value>{QUOTED}|`[^`]*`|-?[\w.]+)""",
    re.VERBOSE | re.DOTALL,
)


class Condition:
    """A query, as a condition in `sql` on view `searched_span`. Raises ValueError or re.error."""

    def __init__(self, query: str) -> None:
        self.parameters: dict[str, object] = {}
        self.fields: list[str] = []
        selector = re.fullmatch(r"\s*\{(.*)\}\s*", query, re.DOTALL)
        if not selector:
            raise ValueError("only a query of one { ... } is supported, with nothing around it")
        if unknown := re.sub(r"[()]|&&|\|\|", " ", COMPARISON.sub(" ", selector[1])).strip():
            raise ValueError(f"this part isn't supported: {unknown}")
        skeleton = COMPARISON.sub("?", selector[1])
        if skeleton.count("?") > 300 or skeleton.count("(") > 30:
            raise ValueError("more than 300 comparisons or 30 parentheses aren't supported")
        rest = "".join(skeleton.split())
        while (shorter := re.sub(r"\(\?\)|\?(&&|\|\|)\?", "?", rest)) != rest:
            rest = shorter
        if rest not in ("", "?"):
            raise ValueError("comparisons must be joined by && or ||, and parentheses be in pairs")
        # AND binds tighter than OR, as && than ||.
        sql = COMPARISON.sub(self._compare, selector[1]).strip() or "TRUE"
        self.sql = sql.replace("&&", "AND").replace("||", "OR")

    def _compare(self, match: re.Match[str]) -> str:
        field, operator = match["field"].removeprefix("span:"), match["operator"]
        wanted = literal(match["value"], KEYWORDS.get(field, ()))
        if operator in OPERATORS:
            re.compile(wanted := str(wanted))
        scope, _, key = field.partition(".")
        column, key = COLUMNS.get(scope), re.sub(QUOTED, lambda text: unquote(text[0]), key)
        if field in INTRINSICS:
            column, key = "intrinsics", field
            wanted = str(wanted).lower().zfill(32) if field == "trace:id" else wanted
        if not column or not key or '"' in key:
            raise ValueError(f"the field {match['field']} isn't supported")
        number = len(self.fields)
        self.fields.append(key)
        self.parameters |= {f"value{number}": wanted, f"path{number}": f'$."{key}"'}
        fold = "min" if operator.startswith("!") else "max"
        test = f"{fold}(value {OPERATORS.get(operator, operator)} :value{number})"
        types = TYPES.get(type(wanted), "('integer', 'real')")
        return f"(SELECT {test} FROM json_each({column}, :path{number}) WHERE type IN {types})"


def literal(word: str, keywords: tuple[str, ...]) -> str | bool | int | float:
    """The value of a word: one of the keywords, a text, a number, a boolean or a duration."""
    if word in keywords:
        return word
    if keywords:
        raise ValueError(f"{word} must be one of {', '.join(keywords)}")
    if word[0] in '"`':
        return unquote(word)
    if word in ("true", "false"):
        return word == "true"
    if re.fullmatch(r"-?\d+(\.\d+)?", word):
        return float(word) if "." in word else int(word)
    return duration(word)


def unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text.strip("`")


def duration(text: str) -> int:
    """Nanoseconds of a duration written as in Go, such as 1m30s. Raises ValueError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(f"{text} isn't a text in quotes, a number or a duration such as 1m30s")
    return round(sum(float(number) * UNITS[unit] for number, unit in parts))
