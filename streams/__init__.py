"""Stream processing of what coding agents use."""
