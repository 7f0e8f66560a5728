"""Workflows as files next to the DAGs: read, compared with Skyvern's, and created there."""
