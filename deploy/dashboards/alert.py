"""An alert, as Prometheus reads it."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Alert:
    """One alert. A page wakes somebody, a ticket waits for the morning. Each has a section of its
    name in RUNBOOK.md.
    """

    name: str
    expression: str
    after: str
    severity: Literal["page", "ticket"]
    summary: str
    description: str
    dashboard: str

    def json(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.after,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "dashboard": f"/d/{self.dashboard}",
                "runbook": f"deploy/RUNBOOK.md#{self.name.lower()}",
            },
        }
