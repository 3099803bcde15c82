# Compare: every run against its untrained base, item by item, and every axis against the base case.
# in:  the score record of every base and run; the runs' records are read from where they lie
# out: results/{study}/compare/: runs.csv, comparisons.csv, axes.csv, and compare.json, written last


rule compare:
    input:
        scores=score_inputs,
    output:
        comparison="<results>/compare/compare.json",
    log:
        "<logs>/compare.log",
    benchmark:
        "<benchmarks>/compare.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
    params:
        results=lambda wildcards, output: Path(output.comparison).parents[1],
        out=lambda wildcards, output: Path(output.comparison).parent,
        cells=sha256_json([*BASES, *CELLS]),
        compare=sha256_json(STUDY.compare),
        literature=files_digest(ROOT / "config" / "literature.yaml"),
        code=code_digest("compare"),
    shell:
        'exec python "$SCRIPTS/compare.py" --study "$STUDY" --results {params.results:q}'
        " --out {params.out:q} --log {log:q}"
