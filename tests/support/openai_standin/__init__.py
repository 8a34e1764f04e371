"""A scriptable stand-in for OpenAI's API, with a ledger of what it would have billed."""

from tests.support.openai_standin.journal import Outcome, Received
from tests.support.openai_standin.ledger import Bill, Ledger
from tests.support.openai_standin.server import Standin, running
from tests.support.openai_standin.step import Step, scripted

__all__ = ["Bill", "Ledger", "Outcome", "Received", "Standin", "Step", "running", "scripted"]
