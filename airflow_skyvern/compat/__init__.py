"""
What differs between Airflow versions, and what is read of Airflow's internals: all of it, and nothing else.

The modules ``since_…`` say which version something came with, so that it can go when the older versions go.
"""
