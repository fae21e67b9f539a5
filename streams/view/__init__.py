"""The topics as a view in Redis, and the queries on it: docs/redis.md has the keys."""
