# One image for Airflow's services and the local cloud; dags/, plugins/ and include/ are mounted.
FROM apache/airflow:slim-3.3.2-python3.12
COPY requirements.txt /requirements.txt
# The lock is complete, hence --no-deps.
RUN pip install --no-cache-dir --no-deps -r /requirements.txt
# A named volume takes its owner from the directory that it covers.
RUN mkdir -p /opt/airflow/cloud
