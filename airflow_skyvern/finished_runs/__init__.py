"""Finished runs as asset events, from a watcher in the triggerer and from webhooks in the API server."""
