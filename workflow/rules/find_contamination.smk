# Find contamination: items of the study's tasks that share a run of words with the training rows, once per data set.
# in:  the prepared rows and their sources, the task files
# out: results/{study}/find_contamination/{data}.json. Nothing but compare depends on it: one more task prepares and trains nothing.


rule find_contamination:
    input:
        card="<results>/data/{data}/card.json",
    output:
        contamination="<results>/find_contamination/{data}.json",
    log:
        "<logs>/find_contamination/{data}.log",
    benchmark:
        "<benchmarks>/find_contamination/{data}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
    params:
        study=lambda wildcards: JOBS.study_file(wildcards.data),
        data=lambda wildcards, input: Path(input.card).parent,
        scoring=SCORING,
        code=code_digest("find_contamination"),
    shell:
        'exec python "$SCRIPTS/find_contamination.py" --study {params.study} --data {params.data:q}'
        " --out {output.contamination:q} --log {log:q}"
