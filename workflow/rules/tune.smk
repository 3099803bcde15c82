# Tune: search for a good setting; if the study says so, the winner becomes a run like any other.
# in:  the tokenised rows of the base case's model; the base model named in the study
# out: results/{study}/tune/tune.json, written last; beside it trials.csv, curves.csv, winner/{study}.yaml (the winner as a
#      study of one run) and, undeclared so that they survive a kill, journal.log and trials/.


checkpoint tune:
    input:
        card=JOBS.card(STUDY.cells[0].run),
    output:
        result=JOBS.search_result,
    log:
        "<logs>/tune.log",
    benchmark:
        "<benchmarks>/tune.tsv"
    conda:
        ENVIRONMENT
    threads: STUDY.base_case.threads * (STUDY.tune.workers if STUDY.tune else 1)
    resources:
        mem_mb=JOBS.request("tune", "tune")["mem_mb"],
        runtime=JOBS.request("tune", "tune")["runtime"],
        gpu=1,
        vram_mib=JOBS.request("tune", "tune")["vram_mib"],
    params:
        data=lambda wildcards, input: Path(input.card).parent,
        out=lambda wildcards, output: Path(output.result).parent,
        search=JOBS.search_digest(),
        code=code_digest("tune"),
    shell:
        'exec python "$SCRIPTS/tune.py" --study "$STUDY" --data {params.data:q} --out {params.out:q}'
        " --cores {threads} $SESSION_ENDS --log {log:q}"
