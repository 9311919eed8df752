"""Which packages a wheel holds; everything else stands in pyproject.toml.

`theory/` lies beside the code that it does not import, and is installed as `diffenc_ct.theory`. pyproject.toml can say
that only with a list of every package, which would be wrong as soon as one is added.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["diffenc_ct", "diffenc_ct.*"]), "diffenc_ct.theory"],
    package_dir={"diffenc_ct.theory": "theory"},
)
