"""Measures what waiting costs, beside the triggers of other providers. docs/performance.md has the results."""
