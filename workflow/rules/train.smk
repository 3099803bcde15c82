# Train: one cell of the grid, one adapter or, for the method `full`, one model.
# in:  the tokenised rows; the base model named in the study
# out: results/{study}/train/{run}/record.json, written last; beside it adapter/ or model/, along/, losses.csv, history.jsonl.
#      Checkpoints are there too, undeclared: Snakemake deletes declared outputs, and checkpoints must survive a kill.


rule train:
    input:
        card=lambda wildcards: card_of(wildcards.run),
    output:
        record="<results>/train/{run}/record.json",
    log:
        "<logs>/train/{run}.log",
    benchmark:
        "<benchmarks>/train/{run}.tsv"
    priority: lambda wildcards: JOBS.train_priority(wildcards.run)
    conda:
        ENVIRONMENT
    threads: lambda wildcards: JOBS.threads(wildcards.run)
    resources:
        mem_mb=lambda wildcards: JOBS.request("train", wildcards.run)["mem_mb"],
        runtime=lambda wildcards: JOBS.request("train", wildcards.run)["runtime"],
        gpu=lambda wildcards: JOBS.request("train", wildcards.run)["gpu"],
        vram_mib=lambda wildcards: JOBS.request("train", wildcards.run)["vram_mib"],
    params:
        study=lambda wildcards: JOBS.study_file(wildcards.run),
        code=code_digest("train"),
    shell:
        'exec python "$SCRIPTS/train.py" --study {params.study} --run {wildcards.run} --data $(dirname {input.card})'
        ' --out $(dirname {output.record}) $SESSION_ENDS --backup "$BACKUP" --log {log:q}'
