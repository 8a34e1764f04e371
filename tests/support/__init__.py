"""Parts that tests share: processes, stand-ins, recorded telemetry, traces as text."""
