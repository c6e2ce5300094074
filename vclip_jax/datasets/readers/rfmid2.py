"""RFMiD 2.0: 860 photographs with 50 diseases and signs (India), in three parts.

Panchal et al., "Retinal Fundus Multi-Disease Image Dataset (RFMiD) 2.0", Data 8(2):29, 2023; Zenodo
7505822. Layout, in which the tables may also lie above the folders:

    Training_set/RFMiD_2_Training_labels.csv        Training_set/1.jpg ...      509 images
    Validation_set/RFMiD_2_Validation_labels.csv    Validation_set/1.jpg ...    177 images
    Test_set/RFMiD_2_Testing_labels.csv             Test_set/1.jpg ...          174 images

The tables have ID, WNL (1 if the eye is within normal limits) and a column for each code; a
non-breaking space follows the column ON, and ODPM is spelt OPDM. Columns, layouts and the meanings
of the codes are from programs that read the tables. MCA means another finding than in RFMiD.
Version 2.1, a folder for each disease, has no table and is not read.

Licence of the data: CC BY 4.0 as reported of Zenodo, not verified.
"""

import os
from typing import Final

from vclip_jax.datasets.listing import Listing
from vclip_jax.datasets.readers import rfmid

_ONLY_IN_THE_FIRST: Final = ("PT", "MNF", "PTCR", "VH", "BRAO", "PLQ", "OTHER")

CODES: Final = {
    **{code: name for code, name in rfmid.CODES.items() if code not in _ONLY_IN_THE_FIRST},
    "CNV": "choroidal neovascularisation",
    "CSC": "cysticercosis",
    "GRT": "giant retinal tear",
    "HTN": "hypertensive retinopathy",
    "IIH": "idiopathic intracranial hypertension",
    "MCA": "microaneurysms",
    "ME": "macular oedema",
    "ON": "optic neuritis",
    "RD": "retinal detachment",
    "RHL": "retinal holes",
    "RTR": "retinal tear",
    "SOFE": "silicone oil-filled eye",
}
"""Code -> finding."""

RELEASE: Final = rfmid.Release(
    name="rfmid2",
    title="RFMiD 2.0",
    prefix="RFMiD_2_",
    codes=CODES,
    column="WNL",
    normal=1,
    description="Photographs with a column for each of 50 diseases and signs, from India.",
    homepage="https://doi.org/10.5281/zenodo.7505822",
    licence="CC BY 4.0 (as reported, not verified)",
)


def scan(source: str | os.PathLike[str]) -> Listing:
    """List RFMiD 2.0.

    Args:
        source: the folder with the parts, of which some may be missing.

    Raises:
        ValueError: one line: there is no table, a part has a table and no images, or a table has a
            fault.
    """
    return rfmid.list_release(source, RELEASE)
