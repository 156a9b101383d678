"""Addresses with secrets: every form is found, and no text shows it."""

import pytest

from uncseg.config.secret_addresses import masked, secret_in

SECRET = "hunter2"
WITH_SECRET = [
    "http://user:hunter2@host:5000",
    "https://:hunter2@host",
    "HTTPS://hunter2@host/path",
    "http://hunter2@host",
    "http:/user:hunter2@host",
    "user:hunter2@host:5000",
    "http://user:hunter2@[::1",
    "http://host/?access_token=hunter2",
    "http://host/#token=hunter2",
    "https://host/mlflow?api_key=hunter2&x=1",
    "https://host/?sig=hunter2",
    "postgresql://u:hunter2@host/db",
    "postgresql+psycopg://u:hunter2@h1,h2/db",
    "postgresql://u@h/db?password=hunter2",
    "postgresql:///db?host=h&user=u&Password=hunter2",
    "postgresql://u@h/db?sslpassword=hunter2",
    "mysql+pymysql://u@h/db?charset=utf8&passwd=hunter2",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BUID%3Du%3BPWD%3Dhunter2",
    "mssql://u@h/db?x=1;pwd=hunter2",
    "databricks://token:hunter2@host",
    "sqlite+pysqlcipher://:hunter2@/data/mlflow.db",
]


@pytest.mark.parametrize("address", WITH_SECRET)
def test_a_secret_is_found_and_never_shown(address):
    assert secret_in(address)
    assert SECRET not in secret_in(address)
    for text in (address, f"cannot reach {address}: refused", f"({address})"):
        assert SECRET not in masked(text), masked(text)


def test_a_long_text_is_masked_at_once():
    for part in ("x", "key", "a:", "//", "pass.", "%3D"):
        assert len(masked(part * 20_000)) == len(part) * 20_000


@pytest.mark.parametrize(
    "address",
    [
        "http://host:5000",
        "https://host/mlflow/team-a",
        "https://[::1]:5000/",
        "https://host/path@version",
        "postgresql://mlflow@host/db",
        "postgresql://mlflow@host/db?sslmode=require&sslkey=client.key&passfile=pgpass",
        "sqlite:////data/runs/mlflow.db",
        "sqlite:////data/a:b@c/mlflow.db",
        "sqlite:///runs of today/mlflow.db",
        "databricks",
        "databricks://profile",
        "runs/mlflow.db",
        "s3://bucket/key/of/things",
    ],
)
def test_an_address_without_a_secret_stays_as_it_is(address):
    assert secret_in(address) is None
    if "mlflow@" not in address:
        assert masked(f"no answer from {address}, tried twice") == f"no answer from {address}, tried twice"
