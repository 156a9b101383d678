import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from uncseg.tracking.manifest import read_manifest, update_manifest


def test_an_absent_manifest_is_empty(run):
    assert read_manifest(run.manifest) == {}


def test_writers_side_by_side_keep_each_others_keys(run):
    other = (
        "import sys\n"
        "from pathlib import Path\n"
        "from uncseg.tracking.manifest import update_manifest\n"
        "for i in range(50): update_manifest(Path(sys.argv[1]), **{f'process_{i}': i})\n"
    )
    with subprocess.Popen([sys.executable, "-c", other, str(run.manifest)]) as process, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: update_manifest(run.manifest, **{f"thread_{i}": i}), range(50)))
        assert process.wait() == 0
    expected = {f"{writer}_{i}": i for writer in ("process", "thread") for i in range(50)}
    assert read_manifest(run.manifest) == expected


def test_the_last_value_of_a_key_stands(run):
    update_manifest(run.manifest, digests={"split": "a"}, versions={})
    update_manifest(run.manifest, digests={"split": "b"})
    assert read_manifest(run.manifest) == {"digests": {"split": "b"}, "versions": {}}
