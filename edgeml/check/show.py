"""Findings as text, as GitHub's annotations, as JSON and as SARIF 2.1.0."""

from __future__ import annotations

import json
from typing import Any

from edgeml import __version__
from edgeml.check.finding import ERROR, Finding, Rule, files_of

_HEAD = """# Rules of `edgeml check`

Made from the rules themselves by `python -m edgeml.check`; a test holds the two together. A finding is silenced only by
a comment beside it, or alone on the line above it, that names the rule and says why:

```yaml
shiny: true  # edgeml: allow unknown-key, because the service has it in preview
```
"""
_LANGUAGES = {"yml": "yaml", "yaml": "yaml", "py": "python", "sh": "bash", "toml": "toml", "json": "json"}
FORMATS = ("text", "github", "json", "sarif")


def render(findings: list[Finding], rules: tuple[Rule, ...], form: str) -> str:
    """The findings in one of `FORMATS`, ending in no line break."""
    if form == "json":
        return json.dumps([finding._asdict() for finding in findings], indent=2)
    if form == "sarif":
        return json.dumps(sarif(findings, rules), indent=2)
    line = _annotation if form == "github" else _text
    return "\n".join(map(line, findings))


def _text(finding: Finding) -> str:
    return f"{finding.path}:{finding.line}:{finding.column} {finding.rule} {finding.message}"


def _annotation(finding: Finding) -> str:
    """Source: GitHub's "Workflow commands", which want these characters encoded."""

    def data(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def property_(text: str) -> str:
        return data(text).replace(":", "%3A").replace(",", "%2C")

    place = f"file={property_(finding.path)},line={finding.line},col={finding.column},title={finding.rule}"
    return f"::{finding.severity} {place}::{data(finding.message)}"


def page(rules: tuple[Rule, ...]) -> str:
    """The page of all rules, as Markdown."""
    rows = [f"| [`{rule.id}`](#{rule.id}) | {rule.severity} | {rule.title} |" for rule in rules]
    parts = [
        f"## {rule.id}\n\n{rule.title}. {rule.why}\n\n{_example('breaks it', rule.bad)}\n"
        f"{_example('keeps it', rule.good)}"
        for rule in rules
    ]
    table = "\n".join(["| rule | severity | |", "|---|---|---|", *rows])
    return f"{_HEAD}\n{table}\n\n" + "\n".join(parts)


def _example(what: str, example: str) -> str:
    """One block of code for each file; the files of a tree are named."""
    files = files_of(example, "")
    if list(files) == [""]:
        return f"```yaml\n# {what}\n{example}```\n"
    blocks = [
        f"`{path}`:\n\n```{_LANGUAGES.get(path.rpartition('.')[2], '')}\n{text}```\n" for path, text in files.items()
    ]
    return "\n".join([f"{what.capitalize()}:\n", *blocks])


def sarif(findings: list[Finding], rules: tuple[Rule, ...]) -> dict[str, Any]:
    """One run of SARIF 2.1.0 with every rule described, and the results by their index."""
    index = {rule.id: number for number, rule in enumerate(rules)}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "edgeml check",
                        "version": __version__,
                        "rules": [
                            {
                                "id": rule.id,
                                "shortDescription": {"text": rule.title},
                                "fullDescription": {"text": rule.why},
                                "defaultConfiguration": {"level": _level(rule.severity)},
                            }
                            for rule in rules
                        ],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [
                    {
                        "ruleId": finding.rule,
                        "ruleIndex": index[finding.rule],
                        "level": _level(finding.severity),
                        "message": {"text": finding.message},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": finding.path},
                                    "region": {"startLine": finding.line, "startColumn": finding.column},
                                }
                            }
                        ],
                    }
                    for finding in findings
                ],
            }
        ],
    }


def _level(severity: str) -> str:
    return "error" if severity == ERROR else "warning"
