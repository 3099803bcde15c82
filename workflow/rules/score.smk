# Score: one subject (a run's adapter on its base, or an untrained base) on the study's tasks.
# in:  the run's record (none for a base), the held-out rows, the task files
# out: results/{study}/score/{subject}/score.json, written last; beside it items.parquet, answers.jsonl, lm_eval/


rule score:
    input:
        card=lambda wildcards: f"results/{wildcards.study}/data/{data_of(wildcards.subject)}/card.json",
        record=lambda wildcards: (
            f"results/{wildcards.study}/train/{wildcards.subject}/record.json"
            if wildcards.subject not in BASES
            else []
        ),
    output:
        score="results/{study}/score/{subject}/score.json",
    log:
        "results/{study}/logs/score/{subject}.log",
    benchmark:
        "results/{study}/benchmarks/score/{subject}.tsv"
    priority: lambda wildcards: precedence(wildcards.subject)
    conda:
        "../../environment.yml"
    threads: STUDY.settings["scoring"]["threads"]
    resources:
        mem_mb=lambda wildcards: asked("mem_mb", "score", wildcards.subject),
        runtime=lambda wildcards: asked("runtime", "score", wildcards.subject),
        gpu=1,
        vram_mib=lambda wildcards: asked("vram_mib", "score", wildcards.subject),
    params:
        study=lambda wildcards: study_of(wildcards.subject),
        trained=lambda wildcards, input: (
            f"--record {input.record} --adapter {Path(input.record).parent / 'adapter'}" if input.record else ""
        ),
        scoring=SCORING,
        code=code_digest("score"),
    shell:
        'exec python "$SCRIPTS/score.py" --study {params.study} --subject {wildcards.subject} {params.trained}'
        " --data $(dirname {input.card}) --out $(dirname {output.score}) $SESSION_ENDS --log {log:q}"
