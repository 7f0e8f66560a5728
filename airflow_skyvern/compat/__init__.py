"""
Contains all differences between Airflow versions and all uses of Airflow's internals, and nothing else.

The modules ``since_…`` say which version added something, so that it can be deleted when support for older versions
ends.
"""
