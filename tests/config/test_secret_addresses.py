"""Addresses with secrets: every form is found, and no text shows it."""

import pytest
import yaml

from uncseg.config.experiment import load_experiment
from uncseg.config.secret_addresses import masked, secret_in
from uncseg.errors import ProblemsFound
from uncseg.runs.named_models import settings_of_model

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
    "//user:hunter2@host",
    "http://user:hunter2@[",
    "http://user:hunter2@ho st",
    "http://host:99999999/?credentials=hunter2",
    "sqlite+pysqlcipher://:hunter2@/data/mlflow.db",
    "postgresql://u:my hunter2@nohost.invalid/db",
    "postgresql://u:hunter2 1@nohost.invalid/db",
    "http://u:hunter2/1@host",
    "http://u:1/hunter2@host",
    "postgresql://u:1?hunter2@host/db",
    "postgresql://u%3Ahunter2@host/db",
    "postgresql://u@h:hunter2@host/db",
    "http://h/;password=hunter2",
    "http://host/?p%61ssword=hunter2",
    "postgresql://u@h/db?sslmode=require;pw=hunter2",
    "postgresql://u@h/db?charset=x%3Bpw%3Dhunter2",
    "postgresql://u@h/db#hunter2",
    "sqlite:////data/mlflow.db?hexkey=hunter2",
    "ray://hunter2@host:1",
    "ray://u:hunter2@host:1",
    "ray://host:1?token=hunter2",
    *(
        f"http://host/?{name}=hunter2"
        for name in ["user[password]", "token[]", "bearer", "jwt", "pw", "session", "sid", "code", "sas", "hmac"]
    ),
]


@pytest.mark.parametrize("address", WITH_SECRET)
def test_a_secret_is_found_and_never_shown(address):
    assert secret_in(address)
    assert SECRET not in secret_in(address)
    for text in (address, f"cannot reach {address}: refused", f"({address})"):
        assert SECRET not in masked(text), masked(text)


@pytest.mark.parametrize("address", [*WITH_SECRET, "http://user:hunter2\n@host"])
@pytest.mark.parametrize("way", ["file", "--set", "section", "misspelt"])
def test_an_experiment_with_a_secret_is_refused_and_does_not_show_it(tmp_path, address, way):
    content, overrides = {"name": "demo", "dataset": {"path": str(tmp_path)}}, ["training.epochs=-1"]
    if way == "file":
        content["tracking"] = {"uri": address}
    elif way == "--set":
        overrides.append(f"tracking.uri={address}")
    elif way == "section":
        content["tracking"] = [address]
    else:
        overrides.append(f"trackin.uri={address}")
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ProblemsFound) as caught:
        load_experiment(tmp_path / "e.yaml", overrides)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("address", ["ray://hunter2@host:1", "http://u:hunter2@host:6379", "host:1?token=hunter2"])
@pytest.mark.parametrize("way", ["file", "--set", "model"])
def test_a_secret_in_the_address_of_a_ray_is_refused_with_the_experiment(tmp_path, address, way):
    content = {"name": "demo", "dataset": {"path": str(tmp_path)}}
    if way == "file":
        content["resources"] = {"ray_address": address}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content))
    setting = [] if way == "file" else [f"resources.ray_address={address}"]
    with pytest.raises(ProblemsFound, match="ray_address") as caught:
        settings_of_model(setting) if way == "model" else load_experiment(tmp_path / "e.yaml", setting)
    assert SECRET not in str(caught.value)


def test_a_long_password_is_not_shown_where_the_address_is_cut(tmp_path):
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({"name": "demo", "dataset": {"path": str(tmp_path)}}))
    for address in (f"http://u:{SECRET * 30}@host:x", f"http://h/{'x' * 80}?jwt={SECRET * 9}&{'x' * 90} "):
        for field in ("tracking.uri", "tracking.url", "resources.ray_address"):
            with pytest.raises(ProblemsFound) as caught:
                load_experiment(tmp_path / "e.yaml", [f"{field}={address}"])
            assert SECRET not in str(caught.value)


@pytest.mark.parametrize("model", ["models:/x@y", "models:/x@y@z", "models:/brain/3"])
def test_the_name_of_a_model_is_no_secret(model):
    assert masked(f"there is no {model} in http://u:s@h") == f"there is no {model} in http://***@h"


def test_names_of_settings_are_no_secrets():
    text = "--set evaluation.estimators.mc_dropout.passes=3: found monkeys=2; keyboard=us, author=me"
    assert masked(text) == text


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
        "mssql+pyodbc://mlflow@host/db?driver=ODBC+Driver+18+for+SQL+Server&Encrypt=yes",
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
