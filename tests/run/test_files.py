"""Files that are written whole or not at all, and what a table can hide."""

import os
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from crimson_core import InputError
from crimson_core.run.files import written_whole
from crimson_core.run.pairs import pairs_from_rows
from crimson_core.run.parquet import Limits
from crimson_core.run.tables import open_table


def beside(path):
    return sorted(entry.name for entry in path.parent.iterdir())


def rows_of(path, **options):
    return open_table(path, **options).rows


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("good")
    for others in (".partial", ".ordered", ".rows", ".tmp"):
        Path(f"{path}{others}").write_text("another run's")
    before = beside(path)
    with pytest.raises(OSError, match="full"), written_whole(path) as file:
        file.write("half")
        file.flush()
        raise OSError(28, "the disk is full")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert (path.read_text(), beside(path)) == ("good", before)
    with written_whole(path) as file:
        file.write("better \ud800")
        assert path.read_text() == "good"
    assert (path.read_text(), beside(path)) == ("better \\ud800", before)
    assert all(Path(f"{path}{other}").read_text() == "another run's" for other in (".partial", ".ordered", ".rows"))


def test_a_new_file_may_be_private_and_a_replaced_one_hands_on_its_mode(tmp_path):
    for private, mode in ((True, 0o600), (False, 0o666 & ~_umask())):
        path = tmp_path / f"{private}"
        with written_whole(path, private=private, binary=True) as file:
            file.write(b"x")
            (fresh,) = [name for name in beside(path) if name.startswith(".")]
            assert (tmp_path / fresh).stat().st_mode & 0o077 == (0 if private else mode & 0o077)
        assert path.stat().st_mode & 0o777 == mode
    path.chmod(0o640)
    with written_whole(path, private=True) as file:
        file.write("y")
    assert path.stat().st_mode & 0o777 == 0o640


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_links_are_kept_and_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_text("old")
    with written_whole(tmp_path / "link") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    with pytest.raises(OSError, match="not a regular file"), written_whole(Path(os.devnull)):
        pass


# --- Tables ---------------------------------------------------------------------------------------------------------


def parquet(path, columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="gzip")
    return path


def test_what_comes_out_of_a_parquet_file_is_counted(tmp_path):
    rows = 500_000
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), ["x" * 100_000])
    bomb = parquet(tmp_path / "bomb.parquet", {"reference": repeated, "prediction": repeated})
    assert bomb.stat().st_size < 100_000
    before, started = pyarrow.total_allocated_bytes(), time.process_time()
    with pytest.raises(InputError, match="unpacks to too much; at most 50 MB"):
        rows_of(bomb, limits=Limits(1_000_000, 50 * 2**20))
    assert pyarrow.default_memory_pool().max_memory() - before < 200 * 2**20
    assert time.process_time() - started < 10
    with pytest.raises(InputError, match="500,000 rows; at most 10"):
        rows_of(bomb, limits=Limits(10, 2**40))


def test_lists_are_not_unpacked_and_records_are_read(tmp_path):
    records = pyarrow.array([{"report": "Edema.", "age": "65"}, None])
    columns = {"reference": records, "prediction": ["a", None], "n": [1.5, None], "many": [[0] * 5_000_000, []]}
    path = parquet(tmp_path / "t.parquet", columns)
    assert rows_of(path) == [
        {"reference": {"report": "Edema.", "age": "65"}, "prediction": "a", "n": 1.5},
        {"reference": None, "prediction": None, "n": None},
    ]


def test_a_damaged_parquet_file_is_a_message(tmp_path):
    import random

    whole = parquet(tmp_path / "w.parquet", {"reference": ["SECRET words"] * 50, "prediction": ["d"] * 50}).read_bytes()
    path, chance = tmp_path / "c.parquet", random.Random(1)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3, 20))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            rows_of(path)
        except InputError as error:
            assert "SECRET" not in str(error)


def test_tens_of_thousands_of_columns_are_checked_at_once(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text(",".join(["reference", "prediction", *map(str, range(40_000))]) + "\n")
    started = time.process_time()
    with pytest.raises(InputError, match="no rows"):
        rows_of(path)
    assert time.process_time() - started < 2


def test_a_cell_may_be_long_and_a_quotation_mark_left_open_names_the_row(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(f"reference,prediction\n{'x' * 200_000},y\n")
    assert len(rows_of(path)[0]["reference"]) == 200_000
    path.write_text('reference,prediction\na,b\n"c,d\n')
    with pytest.raises(InputError, match=r"cannot be read beyond row 1: .*Check the quotation marks"):
        rows_of(path)
    path.write_text('"reference,prediction\na,b\n')
    with pytest.raises(InputError, match="cannot be read from its first rows on"):
        rows_of(path)


ROW = "Large right pneumothorax.,SECRET effusion,Normal study\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", ROW + ROW),
        ("p.jsonl", '{"SECRET effusion": 1, "Normal study": 2}\n'),
        ("q.csv", "SECRET,SECRET\na,b\n"),
    ],
)
def test_what_may_be_a_report_is_in_no_message(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as refused:
        pairs_from_rows(rows_of(tmp_path / name), {"reference": "reference", "prediction": "prediction"}, name)
    assert not any(word in str(refused.value) for word in ("SECRET", "Normal", "pneumothorax"))
    assert "usual name" in str(refused.value) or "same name" in str(refused.value)


def test_the_columns_of_a_table_with_a_header_are_told(tmp_path):
    (tmp_path / "p.csv").write_text(f"study_id,gt,pred,note,{'x' * 41}\n1,a,b,c,d\n")
    with pytest.raises(InputError, match=r"It has: 'study_id', 'gt', 'pred', 'note' and 1 more\."):
        pairs_from_rows(rows_of(tmp_path / "p.csv"), {"reference": "reference", "prediction": "pred"}, "p.csv")


def test_blank_lines_between_lines_of_json_do_not_count(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"reference": "a"}\n\n  \n{"reference": "b"}\n')
    assert rows_of(tmp_path / "p.jsonl") == [{"reference": "a"}, {"reference": "b"}]
