"""What an enforcer imports: Emitter and Verdicts."""
