"""Every chat template that TRL ships, with its own special tokens: it loads, and docs/chat-templates.md tells how."""

from tools.describe_templates import PAGE, page


def test_every_template_of_trl_is_used_as_the_page_says():
    found = page()
    assert found == PAGE.read_text(encoding="utf-8"), "run scripts/tools/describe_templates.py"
    rows = {line.split("`")[1]: line for line in found.splitlines() if line.startswith("| `")}
    assert len(rows) > 60 and "refused" not in found.partition("| Template")[2]
    ways = {name: row.split(" | ")[1] for name, row in rows.items()}
    assert (
        ways["qwen3"] == ways["gptoss"] == "one row per reply" and ways["gptoss_training"] == "by its generation marks"
    )
    assert ways["phi3_5"] == ways["llama3_2"] == "by rendering prefixes"
    assert ways["deepseek_r1_distill"] == "by rendering prefixes, opens thoughts"
