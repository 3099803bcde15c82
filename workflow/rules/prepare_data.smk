# Prepare data: read, check, filter, split and tokenise the rows of a data set, once per set, model and labelling.
# in:  the sources of the data set and of the held-out set, and the model's tokenizer
# out: results/{study}/data/{data}/card.json, beside it train.parquet, heldout.parquet
#      and row_groups.parquet


rule prepare_data:
    output:
        card="<results>/data/{data}/card.json",
    log:
        "<logs>/prepare_data/{data}.log",
    benchmark:
        "<benchmarks>/prepare_data/{data}.tsv"
    priority: lambda wildcards: JOBS.data_priority(wildcards.data)
    conda:
        ENVIRONMENT
    threads: lambda wildcards: JOBS.data_processes(wildcards.data)
    resources:
        mem_mb=lambda wildcards, threads: 1500 + 500 * threads,
    params:
        study=lambda wildcards: JOBS.study_file(wildcards.data),
        out=lambda wildcards, output: Path(output.card).parent,
        code=code_digest("prepare_data"),
    shell:
        'exec python "$SCRIPTS/prepare_data.py" --study {params.study} --data {wildcards.data}'
        ' --out {params.out:q} --processes {threads} --backup "$BACKUP" --log {log:q}'
