"""Columns of a stream: rows are ready when every column has them."""

from dataclasses import replace

from bluesky_jit.intake.streams import StreamColumns
from bluesky_jit.messages import Asset


def asset(name: str, first: int, count: int) -> Asset:
    return Asset(uri="file://localhost/f.h5", dataset=name, first=first, count=count, swmr=True)


def test_rows_wait_for_the_slowest_column() -> None:
    columns = StreamColumns(["image", "angle"])
    assert columns.add("image", asset("image", 0, 5)) == []
    [(row, ready)] = columns.add("angle", asset("angle", 0, 3))
    assert (row, ready["image"].count, ready["angle"].count) == (0, 3, 3)
    [(row, ready)] = columns.add("angle", asset("angle", 3, 4))
    assert (row, ready["image"].first, ready["image"].count, ready["angle"].first) == (3, 3, 2, 3)


def test_one_document_can_complete_several() -> None:
    columns = StreamColumns(["image", "angle"])
    columns.add("image", asset("image", 0, 2))
    columns.add("image", asset("image", 2, 2))
    [(row, ready)] = columns.add("angle", asset("angle", 0, 4))
    assert (row, ready["image"].first, ready["image"].count, ready["angle"].first) == (0, 0, 4, 0)


def test_a_document_that_was_lost_costs_its_own_rows_only() -> None:
    columns = StreamColumns(["image", "angle"])
    columns.add("image", asset("image", 0, 2), 0)
    columns.add("image", asset("image", 2, 2), 2)
    [(row, ready)] = columns.add("angle", asset("angle", 2, 2), 2)
    assert (row, ready["image"].first, ready["angle"].first, columns.waiting()) == (2, 2, 2, ["image"])
    [(row, ready)] = columns.add("angle", asset("angle", 0, 2), 0)
    assert (row, ready["image"].first, ready["angle"].first, columns.waiting()) == (0, 0, 0, [])


def test_a_document_that_comes_twice_brings_nothing_new() -> None:
    columns = StreamColumns(["image", "angle"])
    columns.add("image", asset("image", 0, 4), 0)
    assert len(columns.add("angle", asset("angle", 0, 2), 0)) == 1
    assert columns.add("angle", asset("angle", 0, 2), 0) == []
    [(row, ready)] = columns.add("angle", asset("angle", 0, 4), 0)
    assert (row, ready["image"].first, ready["angle"].first, ready["angle"].count) == (2, 2, 2, 2)


def test_rows_of_files_of_their_own_go_by_their_number_in_the_stream() -> None:
    columns = StreamColumns(["image", "angle"])
    columns.add("image", asset("image", 0, 3), 0)
    stage = replace(asset("angle", 100, 4), uri="file://localhost/stage.h5")
    [(row, ready)] = columns.add("angle", stage, 1)
    assert (row, ready["image"].first, ready["image"].count) == (1, 1, 2)
    assert (ready["angle"].first, ready["angle"].count) == (100, 2)


def test_a_point_that_was_taken_again_is_new() -> None:
    """After a pause a plan takes its last point again: the same number in the stream, but the file's next row."""
    columns = StreamColumns(["image", "angle"])
    for file_row, number in ((0, 0), (1, 1), (2, 1)):
        columns.add("image", asset("image", file_row, 1), number)
        [(row, ready)] = columns.add("angle", asset("angle", file_row, 1), number)
        assert (row, ready["image"].first, ready["angle"].first) == (number, file_row, file_row)


def test_an_angle_that_was_lost_is_not_replaced_by_that_of_the_point_taken_again() -> None:
    columns = StreamColumns(["image", "angle"])
    columns.add("image", asset("image", 0, 1), 0)
    assert columns.add("angle", asset("angle", 1, 1), 0) == []
    [(row, ready)] = columns.add("image", asset("image", 1, 1), 0)
    assert (row, ready["image"].first, ready["angle"].first) == (0, 1, 1)


def test_other_columns_are_ignored() -> None:
    columns = StreamColumns(["image"])
    assert columns.add("temperature", asset("temperature", 0, 5)) == []
