"""Tools of this repository: real Skyvern and Airflow servers on loopback, the demo, the pinned constraints."""
