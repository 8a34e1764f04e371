"""The telemetry schema: every metric, span name and attribute key, each with its source.

Code takes names from here and nowhere else. A source says where a name comes from: a clause of the
OpenTelemetry semantic conventions ("semconv …"), the names its users already know ("original"),
or this project ("o11y"). Prometheus shows a metric under its name with dots as underscores, the
unit as suffix and `_total` on counters: `model_inference_duration` in `s` is read as
`model_inference_duration_seconds`.
"""

from o11y.telemetry.schema.aliases import *
from o11y.telemetry.schema.attributes import *
from o11y.telemetry.schema.metrics import *
from o11y.telemetry.schema.spans import *
