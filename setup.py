"""Build the optional compiled kernel; everything else is in pyproject.toml. Without a compiler the install goes on."""

import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HERE = Path("bodymodel", "kernel")
# Products and sums may fuse, which rounds once instead of twice; nothing else leaves IEEE arithmetic.
FLAGS = ["-O3", "-g0", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden"]


class BuildKernel(build_ext):
    """Adds OpenMP where the compiler has it."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension."""
        if self._compiles("-fopenmp"):
            ext.extra_compile_args.append("-fopenmp")
            ext.extra_link_args.append("-fopenmp")
        super().build_extension(ext)

    def _compiles(self, flag: str) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text("#include <omp.h>\nint probe(void) { return omp_get_max_threads(); }\n")
            try:
                made = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=[flag])
                self.compiler.link_shared_object(made, str(Path(folder, "probe.so")), extra_postargs=[flag])
            except Exception:
                return False
        return True


class BuildModules(build_py):
    """Leaves this file out, which the root of the repository, being the package, would make a module of it."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return (package, module, file) of a package."""
        found = super().find_package_modules(package, package_dir)
        return [entry for entry in found if entry[:2] != ("physique", "setup")]


setup(
    cmdclass={"build_ext": BuildKernel, "build_py": BuildModules},
    ext_modules=[
        Extension(
            "physique.bodymodel._kernel",
            [
                str(HERE / name)
                for name in ("module.c", "pack.c", "tensors.c", "plain.c", "avx2.c", "avx512.c", "avx512_half.c")
            ],
            depends=[str(path) for path in sorted(HERE.glob("*.h"))],
            extra_compile_args=FLAGS,
            libraries=["m"],
            optional=True,
        )
    ],
)
