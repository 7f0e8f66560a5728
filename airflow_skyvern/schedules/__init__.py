"""Take over Skyvern's schedules and give them back: DAG files, the handover, the guard."""
