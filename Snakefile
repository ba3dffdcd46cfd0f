# The benchmark and the book as jobs: on this machine, on SLURM, on Kubernetes. Nothing else needs this file.
#
#   snakemake -j 4                       the missing records, then the chapters that read them, then the site
#   snakemake -n                         what that would be
#   snakemake -j 4 records               or: chapters
#   snakemake -j 4 --config profile=full device=cuda suites=exact,gmm shard=20
#
# "Beyond one machine" in CONTRIBUTING.md has the clusters. A job is a command of `scoreatlas`.
import os
import shutil
import sys
import time
from pathlib import Path

OPTIONS = {
    "profile": "quick",
    "device": "cpu",
    "suites": "",  # names with commas between them; all if empty
    "shard": 40,  # cells in a job, at most: to start a job and to notice its end costs as much as many small cells
    "root": workflow.basedir,  # this checkout as every machine sees it; only Kubernetes has to be told
}
if unknown := set(config) - set(OPTIONS):
    sys.exit(f"error: no option {min(unknown)!r}; --config takes {', '.join(OPTIONS)}")
OPTIONS |= config
ROOT = Path(str(OPTIONS["root"])).resolve()
WHAT = f"--profile {OPTIONS['profile']} --device {OPTIONS['device']}"
# The code of this checkout, whatever the environment has installed: a record belongs to the tree that computed it.
ATLAS = f"cd '{ROOT}' && PYTHONPATH='{ROOT}/src' '{Path(sys.executable).with_name('scoreatlas')}'"
NEEDS = {"mem_mb": 8000, "runtime": 240}
if OPTIONS["device"] == "cuda":
    NEEDS |= {"gpu": 1, "gpu_manufacturer": "nvidia", "scale": 0}  # 0: Kubernetes gets limits too; GPUs need one

# Records, executed chapters and the site say what is left to do, not Snakemake's memory of files and times: each output
# below is an empty stamp in a folder of this run alone, so no earlier run can vouch for it. Jobs read this file again,
# in processes of their own, but do not plan: their wildcards say what to do.
STAMPS = "_build/snakemake/{run}"
RUN = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
SHARDS, CHAPTERS, SITE = {}, {}, False
if workflow.is_main_process:
    sys.path.insert(0, f"{ROOT}/src")
    from scoreatlas.bench.shards import write
    from scoreatlas.book.jobs import left
    from scoreatlas.errors import AtlasError

    suites = [name for name in str(OPTIONS["suites"]).split(",") if name]
    try:
        todo = left(ROOT, OPTIONS["profile"], OPTIONS["device"], suites, int(OPTIONS["shard"]))
    except AtlasError as error:
        sys.exit(f"error: {error}")
    print(f"left to do: {todo}", file=sys.stderr)
    SHARDS, CHAPTERS, SITE = todo.shards, todo.chapters, todo.site


def shards(suites):
    return [f"{STAMPS}/cells/{suite}/{i}".format(run=RUN) for suite in suites for i in SHARDS[suite]]


wildcard_constraints:
    run="[^/]+",
    suite="[^/]+",
    shard="[^/]+",


localrules: all, records, chapters, site


onstart:
    for suite, pieces in SHARDS.items():
        for i, cells in pieces.items():
            write(ROOT / STAMPS.format(run=RUN) / f"cells/{suite}/{i}.json", cells)


onsuccess:
    shutil.rmtree(ROOT / STAMPS.format(run=RUN), ignore_errors=True)


rule all:
    input: expand(f"{STAMPS}/site", run=RUN) if SITE else []


rule records:
    input: shards(SHARDS)


rule chapters:
    input: expand(f"{STAMPS}/chapters/{{chapter}}", run=RUN, chapter=CHAPTERS)


# A cell that fails is recorded and shown as such. What fails this job is a lost machine, or memory that ran out;
# another attempt computes what it left. The pipe keeps progress bars, which want a terminal of their own, out of logs.
rule cells:
    output: touch(f"{STAMPS}/cells/{{suite}}/{{shard}}")
    params: cells=f"{ROOT}/{STAMPS}/cells/{{suite}}/{{shard}}.json"
    resources: **NEEDS
    shell: "{ATLAS} bench run {wildcards.suite} {WHAT} --failed-ok --keys '{params.cells}' 2>&1 | cat"


rule chapter:
    input: lambda wildcards: shards(CHAPTERS.get(wildcards.chapter, []))
    output: touch(f"{STAMPS}/chapters/{{chapter}}")
    resources: **NEEDS
    shell: "{ATLAS} book execute {wildcards.chapter} {WHAT} --jobs 1 2>&1 | cat"


rule site:
    input: rules.records.input, rules.chapters.input
    output: touch(f"{STAMPS}/site")
    shell: "{ATLAS} book build {WHAT}"
