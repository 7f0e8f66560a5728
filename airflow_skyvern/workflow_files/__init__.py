"""Workflows as files beside the DAGs: read, compared with what Skyvern has, and made there."""
