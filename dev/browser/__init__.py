"""A real Chromium for the Skyvern server: a scripted model tells it what to do, on a web site on loopback."""
