"""Documents on disk: whole, in order, with one owner."""

from pathlib import Path

import numpy as np
import pytest

from bluesky_jit.publish.run_folder import RunFolder, RunRecord, left_behind

START = {"uid": "u", "time": 1.0}
DESCRIPTOR = {"uid": "d", "name": "XY", "time": 2.0}


def event(number: int) -> dict:
    return {"uid": f"e{number}", "descriptor": "d", "time": 2.0 + number, "seq_num": number}


def test_documents_come_back_as_they_were(tmp_path):
    folder = RunFolder(tmp_path / "u")
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    folder.append(("start", START))
    folder.append(("event", {"data": {"raw": image, "update": np.int64(3), "flats": "none"}}))
    assert folder.count == 2
    assert folder.read(0) == ("start", START)
    name, document = folder.read(1)
    assert (name, document["data"]["update"], document["data"]["flats"]) == ("event", 3, "none")
    np.testing.assert_array_equal(document["data"]["raw"], image)
    assert document["data"]["raw"].dtype == np.float32
    folder.close()


def test_what_is_no_plain_value_is_refused(tmp_path):
    folder = RunFolder(tmp_path / "u")
    with pytest.raises(TypeError, match="object cannot be kept"):
        folder.append(("start", {"uid": object()}))
    assert folder.count == 0
    folder.close()


def test_a_folder_has_one_owner(tmp_path):
    folder = RunFolder(tmp_path / "u")
    folder.append(("start", START))
    assert list(left_behind(tmp_path)) == []
    folder.close()
    (found,) = left_behind(tmp_path)
    assert found.path == folder.path
    found.close()


def test_a_run_whose_session_died_is_given_a_stop_document(tmp_path):
    folder = RunFolder(tmp_path / "u")
    folder.append(("start", START), ("descriptor", DESCRIPTOR), ("event", event(1)), ("event", event(2)))
    folder.close()
    (found,) = left_behind(tmp_path)
    name, stop = found.read(found.count - 1)
    assert (name, stop["run_start"], stop["num_events"], stop["time"]) == ("stop", "u", {"XY": 2}, 4.0)
    assert stop["exit_status"] == "fail"
    found.close()
    (again,) = left_behind(tmp_path)
    assert again.count == found.count
    again.close()


def test_an_empty_folder_is_swept_away(tmp_path):
    RunFolder(tmp_path / "u").close()
    assert list(left_behind(tmp_path)) == []
    assert not (tmp_path / "u").exists()


def test_removing_a_folder_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path / "u")
    folder.append(("start", START))
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def no_room_at(folder: RunFolder, index: int) -> Path:
    """Make the disk refuse a document."""
    obstacle = folder.path / f"{index:08d}.partial"
    obstacle.mkdir()
    return obstacle


def test_documents_that_belong_together_are_all_kept_or_none(tmp_path):
    folder = RunFolder(tmp_path / "u")
    obstacle = no_room_at(folder, 1)
    with pytest.raises(OSError, match="partial"):
        folder.append(("start", START), ("descriptor", DESCRIPTOR))
    assert (folder.count, list(folder.path.glob("*.msgpack"))) == (0, [])
    obstacle.rmdir()
    folder.append(("start", START), ("descriptor", DESCRIPTOR))
    assert [folder.read(index)[0] for index in range(folder.count)] == ["start", "descriptor"]
    folder.close()


def test_a_record_that_finds_no_room_is_missing_whole_and_alone(tmp_path):
    folder = RunFolder(tmp_path / "u")
    record = RunRecord(folder)
    record.add("start", START)
    obstacle = no_room_at(folder, 2)
    record.add("descriptor", DESCRIPTOR)
    with pytest.raises(OSError, match="partial"):
        record.add("event", event(1))
    obstacle.rmdir()
    record.add("event", event(2))
    obstacle = no_room_at(folder, 3)
    with pytest.raises(OSError, match="partial"):
        record.add("event", event(3))
    obstacle.rmdir()
    record.add("event", event(4))
    record.add("stop", {"num_events": {"XY": 4}})
    found = [folder.read(index) for index in range(folder.count)]
    assert [name for name, _ in found] == ["start", "descriptor", "event", "event", "stop"]
    assert [(document["uid"], document["seq_num"]) for name, document in found if name == "event"] == [
        ("e2", 1),
        ("e4", 2),
    ]
    assert found[-1][1]["num_events"] == {"XY": 2}
    folder.close()


def test_a_run_whose_start_finds_no_room_is_not_kept(tmp_path):
    folder = RunFolder(tmp_path / "u")
    record = RunRecord(folder)
    obstacle = no_room_at(folder, 0)
    with pytest.raises(OSError, match="partial"):
        record.add("start", START)
    obstacle.rmdir()
    with pytest.raises(OSError, match="no room for its start"):
        record.add("descriptor", DESCRIPTOR)
    assert folder.count == 0
    folder.close()
