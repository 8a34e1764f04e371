"""Durations and sums of money as people read them in a terminal."""


def seconds(value: float) -> str:
    """A duration in at most 7 characters, below a thousand minutes."""
    if value < 0.00095:
        return f"{value * 1e6:.0f} µs"
    if value < 0.00995:
        return f"{value * 1e3:.1f} ms"
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    return f"{value:.2f} s" if value < 99.995 else f"{value:.0f} s"


def dollars(value: float | None) -> str:
    """US dollars: a call costs a fraction of a cent, so small sums keep their digits."""
    if value is None:
        return "unknown"
    if value == 0:
        return "$0"
    return f"${value:.2f}" if value >= 0.995 else f"${value:.6f}".rstrip("0").rstrip(".")
