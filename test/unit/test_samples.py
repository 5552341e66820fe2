"""The INI files in runners.d and tasklists.d: they load, and their definitions match their comments."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskfarmer.config import BUILT_IN, Configuration

HOUSE = Path(__file__).parents[2]


@pytest.fixture
def samples(tmp_path: Path) -> Configuration:
    # Named, not found: permissions of the checkout for its group or others do not matter to this test.
    nowhere = str(tmp_path)
    environ = {"TASKFARMER_CONFIG_DIR": str(HOUSE)}
    return Configuration.search(cwd=nowhere, environ=environ, home=nowhere, etc=nowhere)


def test_the_samples_define_these_names(samples: Configuration) -> None:
    defined = {
        (Path(d.file).name, d.kind, d.name, d.class_path)
        for d in samples.definitions()
        if d.file != BUILT_IN and d.file.startswith(str(HOUSE))
    }
    assert defined == {
        ("plain.ini", "runner", "plain", "taskfarmer.runners.BasicRunner"),
        ("shifter.ini", "runner", "debian", "taskfarmer.runners.ShifterRunner"),
        ("shifter.ini", "runner", "reco22", "taskfarmer.runners.ShifterRunner"),
        ("lines.ini", "tasklist", "lines", "taskfarmer.tasks.ListTaskList"),
        ("atlas.ini", "tasklist", "digi", "taskfarmer.atlas.TransformTaskList"),
        ("atlas.ini", "tasklist", "digi-split", "taskfarmer.atlas.TransformTaskList"),
        ("atlas.ini", "tasklist", "validation", "taskfarmer.atlas.AthenaTaskList"),
    }


def test_no_sample_has_a_problem(samples: Configuration) -> None:
    assert samples.faults == []
    assert [samples.problem(definition) for definition in samples.definitions()] == [None] * len(samples.definitions())


def test_the_plain_sample_runs_commands(samples: Configuration) -> None:
    assert samples.runner("plain").argv(0, "echo a | cat") == ["/bin/bash", "-c", "--", "echo a | cat"]


def test_the_shifter_sample_starts_the_described_container(samples: Configuration, tmp_path: Path) -> None:
    runner = samples.runner("reco22")
    argv = runner.argv(0, "Reco_tf.py")
    try:
        assert argv[1] == "--image=zlmarshall/atlas-grid-centos7:20191110"
        assert argv[2].startswith("--workdir=")
        assert argv[3:7] == ["--volume=/global/cfs/cdirs/atlas:/data", "--module=cvmfs", "--", "/bin/bash"]
        assert argv[9] == (
            "export ATLAS_LOCAL_ROOT_BASE=/cvmfs/atlas.cern.ch/repo/ATLASLocalRootBase && "
            "source ${ATLAS_LOCAL_ROOT_BASE}/user/atlasLocalSetup.sh && "
            "source ${AtlasSetup}/scripts/asetup.sh Athena,22.2,latest && Reco_tf.py"
        )
    finally:
        runner.cleanup(0)
    assert samples.runner("debian").argv(0, "date")[1:] == ["--image=debian:12", "--", "/bin/bash", "-c", "--", "date"]


def test_the_atlas_samples_make_the_documented_commands(samples: Configuration, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.txt"
    inputs.write_text("/data/HITS.01.root\n")
    made_of, options = samples.tasklist_class("digi")
    command = made_of(str(inputs), str(tmp_path), **options)[0]
    assert command.startswith("Reco_tf.py --autoConfiguration 'everything' --digiSteeringConf ")
    assert "--inputHITSFile /data/HITS.01.root --outputRDOFile RDO.0.root && rsync -avr RDO.0.root " in command
    made_of, options = samples.tasklist_class("validation")
    command = made_of(str(inputs), str(tmp_path), **options)[0]
    assert command.startswith("athena.py --nprocs '8' --filesInput /data/HITS.01.root InDetPhysValMonitoring/")
    assert command.endswith("/output/M_output.root.0")
    assert samples.tasklist_class("digi-split")[1]["maxEventsPerJob"] == "500"
