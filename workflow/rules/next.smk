# Next: the cheapest ways to close the questions that the study leaves open, and a study file that takes the best of them.
# in:  results/{study}/compare/compare.json; compare's tables and the records, undeclared
# out: results/{study}/next/next.json with every option, which the report shows the best of. `snakemake next` prints a table and
#      writes results/{study}/next/{study}.yaml: undeclared, for Snakemake would delete the study file that it may be running.


rule find_next:
    input:
        comparison="<results>/compare/compare.json",
    output:
        options="<results>/next/next.json",
    log:
        "<logs>/find_next.log",
    benchmark:
        "<benchmarks>/find_next.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
    params:
        results=lambda wildcards, input: Path(input.comparison).parents[1],
        out=lambda wildcards, output: Path(output.options).parent,
        code=code_digest("next"),
    shell:
        'exec python "$SCRIPTS/next.py" --study "$STUDY" --results {params.results:q} --out {params.out:q} --log {log:q}'


rule next:
    input:
        comparison="<results>/compare/compare.json",
    log:
        "<logs>/next.log",
    conda:
        ENVIRONMENT
    params:
        results=lambda wildcards, input: Path(input.comparison).parents[1],
        budget="" if OPTIONS.budget_hours is None else f"--budget-hours {OPTIONS.budget_hours}",
    shell:
        'exec python "$SCRIPTS/next.py" --study "$STUDY" --results {params.results:q} --out {params.results:q}/next'
        " --propose {params.budget} --text {log:q}"
