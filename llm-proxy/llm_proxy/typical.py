"""The usual length of a choice in a model's answers, for those that nobody sees."""

MAX_MODELS = 1000
"""Models of which it is known: their names come from callers."""

WEIGHT = 0.05
"""The part of the newest answer in the average."""


class TypicalOutputs:
    """The output tokens of a choice on average, by operation and model; newer ones count more."""

    def __init__(self) -> None:
        self._means: dict[tuple[str, str], float] = {}

    def learn(self, operation: str, model: str, tokens: float) -> None:
        """Take a choice of so many tokens into the average."""
        before = self._means.get((operation, model))
        if before is None:
            if len(self._means) >= MAX_MODELS:
                self._means.clear()
            before = tokens
        self._means[operation, model] = before + WEIGHT * (tokens - before)

    def of(self, operation: str, model: str) -> int | None:
        """The average; None where no answer is known."""
        found = self._means.get((operation, model))
        return None if found is None else round(found)
