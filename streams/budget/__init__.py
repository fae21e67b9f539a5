"""The model: what is measured, allowed and decided. Pure."""
