# Tune: search for a good setting; where the study says so its winner becomes a run like any other.
# in:  the tokenised rows of the base case's model; the base model named in the study
# out: results/{study}/tune/tune.json, written last; beside it trials.csv, curves.csv, winner/{study}.yaml (the winner as a
#      study of one run) and, undeclared so that they survive a kill, journal.log and trials/.


checkpoint tune:
    input:
        card=card_of(BASE_CASE.run),
    output:
        result=SEARCH_RESULT,
    log:
        "<logs>/tune.log",
    benchmark:
        "<benchmarks>/tune.tsv"
    conda:
        "../../environment.yml"
    threads: STUDY.training.threads * (STUDY.tune or {"workers": 1})["workers"]
    resources:
        mem_mb=RESOURCES["tune"]["tune"]["mem_mb"],
        runtime=RESOURCES["tune"]["tune"]["runtime"],
        gpu=1,
        vram_mib=RESOURCES["tune"]["tune"]["vram_mib"],
    params:
        data=lambda wildcards, input: Path(input.card).parent,
        out=lambda wildcards, output: Path(output.result).parent,
        search=SEARCH,
        code=code_digest("tune"),
    shell:
        'exec python "$SCRIPTS/tune.py" --study "$STUDY" --data {params.data:q} --out {params.out:q}'
        " --cores {threads} $SESSION_ENDS --log {log:q}"
