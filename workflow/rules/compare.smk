# Compare: every run against its untrained base, item by item, and every axis against the base case.
# in:  the score record of every base, run (along its budget too) and adopted adapter; the contamination of every data set that
#      is trained on; the runs' records, undeclared
# out: results/{study}/compare/: runs.csv, comparisons.csv, axes.csv, and compare.json, written last


rule compare:
    input:
        scores=lambda wildcards: JOBS.score_files(winner(), partial=OPTIONS.partial),
        contamination=JOBS.contamination_files(partial=OPTIONS.partial),
    output:
        comparison="<results>/compare/compare.json",
    log:
        "<logs>/compare.log",
    benchmark:
        "<benchmarks>/compare.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
    params:
        results=lambda wildcards, output: Path(output.comparison).parents[1],
        out=lambda wildcards, output: Path(output.comparison).parent,
        cells=sha256_json([*STUDY.bases, *(cell.run for cell in STUDY.cells), *STUDY.adopted]),
        compare=sha256_json(STUDY.yaml["compare"]),
        literature=rules_digest(),
        code=code_digest("compare"),
    shell:
        'exec python "$SCRIPTS/compare.py" --study "$STUDY" --results {params.results:q}'
        " --out {params.out:q} --log {log:q}"
