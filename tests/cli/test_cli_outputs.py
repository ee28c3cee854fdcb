import pytest

from mezzotint.cli.outputs import Outputs
from mezzotint.errors import InputError


def test_one_file_named_twice_is_refused(tmp_path):
    picture = tmp_path / "a.png"
    with pytest.raises(InputError, match="one file twice"):
        Outputs(picture, picture, None, overwrite=True).check()
    Outputs(picture, tmp_path / "b.png", None, overwrite=True).check()
