import json


def test_a_run_by_the_beginning_of_its_id(store, seal, ask):
    store.run("abcdef")
    seal(store)
    status, told = ask("show", "abc")
    assert status == 0
    assert "run abcdef: tiny w3a16 qig" in told and told.count("verified") == 3
    assert "granularity: token" in told and "calibrated on 2 samples: s0, s1" in told


def test_damage_is_shown(store, seal, ask):
    store.run("abcdef")
    seal(store)
    (store.root / "evaluation" / "eabcdef" / "samples.jsonl").write_text("")
    assert "samples.jsonl does not match its checksum" in ask("show", "abcdef")[1]


def test_the_record_itself(store, ask):
    store.run("abcdef")
    told = ask("show", "abcdef", "--json")[1]
    assert json.loads(told) == json.loads((store.root / "runs" / "abcdef" / "record.json").read_text())


def test_an_unknown_run_is_refused_with_the_choices(store, ask):
    store.run("abcdef")
    status, told = ask("show", "abcdeg")
    assert status == 1 and "did you mean 'abcdef'" in told


def test_a_beginning_of_several_runs_and_a_torn_job_are_told(store, ask, tmp_path):
    for name in ("abcdef", "abcxyz", "other"):
        store.run(name)
    status, told = ask("show", "abc")
    assert status == 1 and "'abc' is the beginning of 2 runs: abcdef, abcxyz" in told and "other" not in told
    (tmp_path / "job").mkdir()
    for text in ("{", json.dumps({"run": "abcdef"})):
        (tmp_path / "job" / "run.json").write_text(text)
        status, told = ask("show", str(tmp_path / "job"))
        assert status == 1 and "unreadable job files" in told and "Traceback" not in told


def test_an_empty_id_is_said_to_be_empty(store, ask):
    store.run("abcdef")
    status, told = ask("show", "")
    assert status == 1 and "the run's id is empty" in told
