"""Exports in parts that a backend takes: gRPC servers refuse messages of more than 4 MiB.

The SDK's processors count records, and its exporters bytes only to drop what is too much.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import ReadableSpan

MAX_BYTES = 3 << 20
"""Most bytes of a part, as they are estimated here."""

MAX_POINTS = 1000
"""Most data points of a part: with a dozen labels of 256 bytes each takes less than 4 KiB."""

_RECORD_BYTES = 512
"""Bytes of a record or an event beside its attributes."""

_ATTRIBUTE_BYTES = 48
"""Bytes of an attribute beside its text."""


class InParts:
    """Makes an exporter export a large batch in parts; a class to inherit from before the
    exporter's. A batch has arrived when all its parts have.
    """

    def export(self, batch: Any, *arguments: Any, **options: Any) -> Any:
        exporter: Any = super()
        if isinstance(batch, MetricsData):  # the exporter splits these itself
            return exporter.export(batch, *arguments, **options)
        results = [exporter.export(part, *arguments, **options) for part in parts(batch)]
        return next((each for each in results if each.name != "SUCCESS"), results[-1])


def parts(batch: Sequence[Any], max_bytes: int = MAX_BYTES) -> Iterator[Sequence[Any]]:
    """The batch of spans or log records in parts, in its order; at least one."""
    begin = size = 0
    for at, record in enumerate(batch):
        its_size = _size(record)
        if at > begin and size + its_size > max_bytes:
            yield batch[begin:at]
            begin, size = at, 0
        size += its_size
    yield batch[begin:]


def _size(record: ReadableSpan | ReadableLogRecord) -> int:
    if isinstance(record, ReadableSpan):
        inner = [each.attributes for each in record.events]
        inner += [each.attributes for each in record.links]
        return sum(_RECORD_BYTES + _attributes_size(each) for each in (record.attributes, *inner))
    log = record.log_record
    return _RECORD_BYTES + _value_size(log.body) + _attributes_size(log.attributes)


def _attributes_size(attributes: Mapping[str, Any] | None) -> int:
    if not attributes:
        return 0
    size = len(attributes) * _ATTRIBUTE_BYTES
    return size + sum(_value_size(each) for each in attributes.values())


def _value_size(value: object) -> int:
    """About the bytes of a value, most of which are short ASCII."""
    if isinstance(value, str):
        return len(value) if value.isascii() else 4 * len(value)
    if isinstance(value, list | tuple):
        return sum(8 + _value_size(each) for each in value)
    if isinstance(value, Mapping):
        return _attributes_size(value)
    return 8
