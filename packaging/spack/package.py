"""A recipe for Spack (1.0 or newer). Copy it into your Spack repository as packages/py_taskfarmer/package.py.

It builds a checkout: `spack develop --path CHECKOUT py-taskfarmer@=1.0.0.dev0`, or `spack dev-build`.
"""

from spack.package import depends_on, license, version
from spack_repo.builtin.build_systems.python import PythonPackage


class PyTaskfarmer(PythonPackage):
    """Runs a list of commands on one node or many: nothing lost, nothing recorded twice"""

    license("Apache-2.0")

    version("1.0.0.dev0")

    depends_on("python@3.10:", type=("build", "run"))
    depends_on("py-hatchling", type="build")
    depends_on("py-click@8.1:", type=("build", "run"))
    depends_on("py-filelock@3.30:", type=("build", "run"))
    depends_on("py-pydantic@2:", type=("build", "run"))
    depends_on("py-rich@13:", type=("build", "run"))
