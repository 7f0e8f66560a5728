"""A fake Skyvern: it holds runs and schedules, answers as the real server, and records what it was asked."""
