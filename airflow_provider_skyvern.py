"""
Named as the distribution is, with dashes as underscores: Airflow 3.3 imports it, and logs an error if it cannot.

It looks for `example_dags` there (https://github.com/apache/airflow/issues/66305). There are none: the examples in
dags/ need a workflow of yours. All else is in :mod:`airflow_skyvern`.
"""
