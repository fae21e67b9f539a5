"""Alerts and ends of tasks go to people: webhooks, Slack, a log."""
