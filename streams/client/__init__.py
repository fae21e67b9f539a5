"""What an enforcer imports: `Emitter` says what happens, `Verdicts` knows what was decided."""

from streams.client.answers import TaskVerdict
from streams.client.emitter import Emitter
from streams.client.verdicts import Verdicts

__all__ = ["Emitter", "TaskVerdict", "Verdicts"]
