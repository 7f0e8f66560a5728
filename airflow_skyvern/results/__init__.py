"""Handles the results of a finished run: its output, and the files it downloaded."""
