# Train: one cell of the grid, one LoRA adapter.
# in:  the tokenised rows; the base model named in the study
# out: results/{study}/train/{run}/record.json, written last; beside it adapter/, losses.csv, history.jsonl.
#      Checkpoints lie there too, undeclared: Snakemake deletes what it declares, and they must survive a kill.


rule train:
    input:
        card=by("run", card_of, among=KNOWN),
    output:
        record="<results>/train/{run}/record.json",
    log:
        "<logs>/train/{run}.log",
    benchmark:
        "<benchmarks>/train/{run}.tsv"
    priority: by("run", lambda run: precedence(run, late=1))
    conda:
        "../../environment.yml"
    threads: STUDY.training.threads
    resources:
        mem_mb=asked("mem_mb", "train", "run"),
        runtime=asked("runtime", "train", "run"),
        gpu=1,
        vram_mib=asked("vram_mib", "train", "run"),
    params:
        study=by("run", study_of, among=KNOWN),
        code=code_digest("train"),
    shell:
        'exec python "$SCRIPTS/train.py" --study {params.study} --run {wildcards.run} --data $(dirname {input.card})'
        " --out $(dirname {output.record}) $SESSION_ENDS --log {log:q}"
