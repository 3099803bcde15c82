# Train: one cell of the grid, one LoRA adapter.
# in:  the tokenised rows; the base model named in the study
# out: results/{study}/train/{run}/record.json, written last; beside it adapter/, losses.csv, history.jsonl.
#      Checkpoints lie there too, undeclared: Snakemake deletes what it declares, and they must survive a kill.


rule train:
    input:
        card=lambda wildcards: f"results/{wildcards.study}/data/{data_of(wildcards.run)}/card.json",
    output:
        record="results/{study}/train/{run}/record.json",
    log:
        "results/{study}/logs/train/{run}.log",
    benchmark:
        "results/{study}/benchmarks/train/{run}.tsv"
    priority: lambda wildcards: precedence(wildcards.run, late=1)
    conda:
        "../../environment.yml"
    threads: STUDY.settings["training"]["threads"]
    resources:
        mem_mb=lambda wildcards: asked("mem_mb", "train", wildcards.run),
        runtime=lambda wildcards: asked("runtime", "train", wildcards.run),
        gpu=1,
        vram_mib=lambda wildcards: asked("vram_mib", "train", wildcards.run),
    params:
        study=lambda wildcards: study_of(wildcards.run),
        code=code_digest("train"),
    shell:
        'exec python "$SCRIPTS/train.py" --study {params.study} --run {wildcards.run} --data $(dirname {input.card})'
        " --out $(dirname {output.record}) $SESSION_ENDS --log {log:q}"
