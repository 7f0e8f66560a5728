"""
Is everything set up as it should be: ``airflow-skyvern check``.

What is found out about a connection, its server and this Airflow becomes a line each, in small functions that know
neither network nor database: a fact, and where it is wrong, what to do.
"""
