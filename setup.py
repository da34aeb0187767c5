"""What pyproject.toml has no words for: the cffi module and the stable ABI's tag."""
import platform
import sysconfig

from setuptools import setup

abi3 = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["build_ffi.py:builder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if abi3 else {},
)
