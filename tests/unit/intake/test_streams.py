"""Columns of a stream: rows are ready when every column has them."""

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


def test_one_step_can_complete_several_documents() -> None:
    columns = StreamColumns(["image", "angle"])
    columns.add("image", asset("image", 0, 2))
    columns.add("image", asset("image", 2, 2))
    ready = columns.add("angle", asset("angle", 0, 4))
    assert [(row, assets["image"].first, assets["angle"].first) for row, assets in ready] == [(0, 0, 0), (2, 2, 2)]


def test_other_columns_are_ignored() -> None:
    columns = StreamColumns(["image"])
    assert columns.add("temperature", asset("temperature", 0, 5)) == []
