import shutil


def test_a_sound_store(store, seal, ask):
    store.run("aaa")
    store.run("bbb", method="none", quantized=False)
    seal(store)
    assert ask("verify") == (0, "5 artefacts of 2 runs verified, 0 damaged or absent\n")


def test_damaged_and_absent_artefacts_are_named(store, seal, ask):
    store.run("aaa")
    store.run("bbb")
    seal(store)
    file = store.root / "quantized" / "qaaa" / "sensitivity.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    shutil.rmtree(store.root / "evaluation" / "ebbb")
    status, told = ask("verify")
    assert status == 1
    assert "quantized/qaaa: sensitivity.safetensors does not match its checksum" in told
    assert "evaluation/ebbb: is not there" in told and "2 damaged or absent" in told
    assert ask("verify", "bbb")[1].startswith("evaluation/ebbb: is not there")


def test_an_unreadable_record_is_damage(store, seal, ask):
    store.run("aaa")
    (store.root / "runs" / "aaa" / "record.json").write_text("{}")
    seal(store)
    status, told = ask("verify")
    assert status == 1 and "lacks id, method" in told and "1 damaged or absent" in told
