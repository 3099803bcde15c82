# Score: one subject (a run, a run at a part of its budget, an adopted adapter, or an untrained base) on the study's tasks.
# in:  the run's record (none for a base or an adopted adapter), the held-out rows, the task files
# out: results/{study}/score/{subject}/score.json, written last; beside it items.parquet, answers.jsonl, lm_eval/


rule score:
    input:
        card=lambda wildcards: card_of(wildcards.subject),
        record=lambda wildcards: JOBS.record(wildcards.subject),
    output:
        score="<results>/score/{subject}/score.json",
    log:
        "<logs>/score/{subject}.log",
    benchmark:
        "<benchmarks>/score/{subject}.tsv"
    wildcard_constraints:
        subject=f"{RUN_ID}(@{SHARE})?",
    priority: lambda wildcards: JOBS.priority(wildcards.subject)
    conda:
        ENVIRONMENT
    threads: STUDY.scoring.threads
    resources:
        mem_mb=lambda wildcards: JOBS.request("score", wildcards.subject)["mem_mb"],
        runtime=lambda wildcards: JOBS.request("score", wildcards.subject)["runtime"],
        gpu=1,
        vram_mib=lambda wildcards: JOBS.request("score", wildcards.subject)["vram_mib"],
    params:
        study=lambda wildcards: JOBS.study_file(wildcards.subject),
        trained=lambda wildcards, input: f"--trained {Path(input.record).parent}",
        scoring=SCORING,
        code=code_digest("score"),
    shell:
        'exec python "$SCRIPTS/score.py" --study {params.study} --subject {wildcards.subject} {params.trained}'
        ' --data $(dirname {input.card}) --out $(dirname {output.score}) $SESSION_ENDS --backup "$BACKUP" --log {log:q}'


# A rule of its own for what needs no training here: functions that tell a base from a run would be asked for every run. What is
# not said here is as in `score`; options that name a rule (`--set-resources score:runtime=60`) have to name both.
use rule score as score_base with:
    input:
        card=lambda wildcards: JOBS.card(wildcards.subject),
    wildcard_constraints:
        subject=f"{BASE_ID}|{ADOPTED_ID}",
    params:
        study='"$STUDY"',
        trained="",
