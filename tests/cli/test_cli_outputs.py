import pytest

from mezzotint.errors import InputError
from mezzotint.runs.sample import Outputs


def test_one_file_named_twice_is_refused(tmp_path):
    picture = tmp_path / "a.png"
    with pytest.raises(InputError, match="one file twice"):
        Outputs(out=picture, strip=picture, overwrite=True).check()
    Outputs(out=picture, strip=tmp_path / "b.png", overwrite=True).check()
