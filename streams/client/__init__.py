"""What an enforcer imports: `Emitter` says what happens, `Verdicts` knows what was decided."""

from streams.client.emitter import Emitter

__all__ = ["Emitter"]
