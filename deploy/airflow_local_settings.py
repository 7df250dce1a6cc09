"""Airflow's own hook for site settings. With CeleryExecutor the workers fork the tasks, so only they import ahead."""

import sys

if sys.argv[1:3] == ["celery", "worker"]:
    from include.preload import preload

    preload()
