# One image for all of the product's own services. Airflow's official one without its many providers ("slim"):
# requirements.txt brings those that are needed, pinned. Python 3.11, for everything is tested on it.
FROM apache/airflow:slim-3.3.2-python3.11

RUN --mount=type=bind,source=requirements.txt,target=/tmp/requirements.txt \
    pip install --no-cache-dir --require-hashes --requirement /tmp/requirements.txt

ENV PATH=/opt/fraud/bin:$PATH \
    PYTHONPATH=/opt/fraud \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/fraud/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/fraud/plugins

# Owned by root: what runs there cannot change it.
USER root
COPY dags /opt/fraud/dags
COPY include /opt/fraud/include
COPY plugins /opt/fraud/plugins
COPY --chmod=755 deploy/fraud deploy/prepare_airflow.py /opt/fraud/bin/
COPY deploy/airflow_local_settings.py /opt/airflow/config/
RUN python -m compileall -q /opt/fraud /opt/airflow/config
USER airflow

# Airflow's connections are made from plain variables, then the command takes over.
ENTRYPOINT ["/usr/bin/dumb-init", "--", "fraud", "run"]
CMD ["fraud", "--help"]
