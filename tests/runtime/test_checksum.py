import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.runtime import checksum

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text().filter(lambda name: name != "check"), VALUES, max_size=5)


@given(OBJECTS)
def test_what_was_written_is_intact_when_read(value):
    read = json.loads(json.dumps(checksum.with_checksum(value)))
    assert checksum.is_valid(read)
    assert json.dumps(checksum.strip_checksum(read)) == json.dumps(value)


@given(OBJECTS, st.data())
def test_one_character_that_is_another_is_seen_or_changes_nothing(value, data):
    written = json.dumps(checksum.with_checksum(value))
    place = data.draw(st.integers(0, len(written) - 1))
    other = chr(ord(written[place]) ^ (1 << data.draw(st.integers(0, 6))))
    damaged = written[:place] + other + written[place + 1 :]
    try:
        read = json.loads(damaged)
    except ValueError:
        return
    if isinstance(read, dict) and checksum.is_valid(read) and "check" in read:
        assert json.dumps(checksum.strip_checksum(read)) == json.dumps(value)


def test_names_that_are_numbers_and_tuples_are_read_as_json_has_them():
    assert checksum.with_checksum({"by class": {10: (1, 2), 9: 0.1}})["by class"] == {
        "10": [1, 2],
        "9": 0.1,
    }
    assert checksum.is_valid(checksum.with_checksum({"by class": {10: (1, 2), 9: 0.1}}))


def test_lines_that_are_damaged_or_torn_are_left_out_and_counted(tmp_path):
    rows = [{"images_seen": n, "loss": 0.1 * n} for n in range(5)]
    lines = [checksum.json_line(row) for row in rows]
    lines[1] = lines[1].replace("0.1", "0.2")  # can be read, and says something else
    lines[3] = lines[3][:10] + "\x00" + lines[3][11:]
    lines[4] = lines[4][:12]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(lines))
    assert checksum.read_rows(file) == ([rows[0], rows[2]], 3)


@given(st.text(min_size=1), st.data())
def test_a_text_that_is_another_or_cut_short_is_seen(text, data):
    written = checksum.text_with_checksum(text)
    assert checksum.strip_text_checksum(written) == text
    place = data.draw(st.integers(len(checksum.COMMENT), len(written) - 1))
    assert checksum.strip_text_checksum(written[:place]) is None
    if written[place] != "~":
        assert checksum.strip_text_checksum(written[:place] + "~" + written[place + 1 :]) is None


@pytest.mark.parametrize("text", ["", "a = 1\n", "# a comment\na = 1\n"])
def test_what_has_no_checksum_is_taken_as_it_is(text):
    assert checksum.strip_text_checksum(text) == text
    assert checksum.is_valid({"a": 1})
