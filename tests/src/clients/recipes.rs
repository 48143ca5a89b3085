//! The recipes for CI systems in `deploy/ci`: their shell steps, taken out of the files and run against a cluster, twice each.

use std::{collections::BTreeMap, fs, path::Path};

use super::{Programs, Wrangler};
use crate::process::{Cli, binary};

/// What the pipeline knows that nobody else may.
const VALUE: &str = "s3cret of the pipeline";

type Environment = BTreeMap<String, String>;

/// A step: what it finds in its environment, and its script.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    environment: Environment,
    script: String,
}

fn recipe(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/ci").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines below `heading` that stand deeper than it, comments left out.
fn below<'a>(text: &[&'a str], heading: &str) -> Vec<&'a str> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let at = text.iter().position(|line| line.trim_end() == heading).unwrap_or_else(|| panic!("no {heading:?}"));
    let inside = text[at + 1..].iter().take_while(|line| line.trim().is_empty() || depth(line) > depth(heading));
    inside.copied().filter(|line| !line.trim_start().starts_with('#')).collect()
}

/// `NAME: value` lines.
fn map(lines: &[&str]) -> Environment {
    let pair = |line: &&str| line.trim().split_once(": ").map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
    lines.iter().filter_map(pair).collect()
}

/// A command, or the block that a bar announces, without its indentation.
fn script(first: &str, lines: &[&str], indent: usize) -> String {
    if first != "|" {
        return first.to_owned();
    }
    let block = lines.iter().take_while(|line| line.trim().is_empty() || line.len() - line.trim_start().len() >= indent);
    block.map(|line| line.get(indent..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The steps of a job of GitHub's that run a script.
fn github(text: &str, job: &str) -> Vec<Step> {
    let lines: Vec<&str> = text.lines().collect();
    let job = below(&lines, &format!("  {job}:"));
    let shared = map(&below(&job, "    env:"));
    let steps = below(&job, "    steps:");
    let starts: Vec<usize> = (0..steps.len()).filter(|at| steps[*at].starts_with("      - ")).collect();
    let ends = starts.iter().skip(1).copied().chain([steps.len()]);
    let mut found = Vec::new();
    for (start, end) in starts.iter().copied().zip(ends) {
        let step = &steps[start..end];
        let Some((at, first)) = step.iter().enumerate().find_map(|(at, line)| Some((at, line.strip_prefix("        run: ")?))) else {
            continue;
        };
        let mut environment = shared.clone();
        if step.iter().any(|line| line.trim_end() == "        env:") {
            environment.extend(map(&below(step, "        env:")));
        }
        found.push(Step { environment, script: script(first, &step[at + 1..], 10) });
    }
    found
}

/// The commands of a job of GitLab's, those that clean up included: one shell for each of the two lists.
fn gitlab(text: &str, job: &str) -> Vec<Step> {
    let lines: Vec<&str> = text.lines().collect();
    let job = below(&lines, &format!("{job}:"));
    let environment = map(&below(&job, "  variables:"));
    let lists = ["  script:", "  after_script:"];
    let written = lists.iter().filter(|list| job.iter().any(|line| line.trim_end() == **list));
    written
        .map(|list| {
            let lines = below(&job, list);
            let commands = (0..lines.len()).filter_map(|at| Some(script(lines[at].strip_prefix("    - ")?, &lines[at + 1..], 6)));
            Step { environment: environment.clone(), script: commands.collect::<Vec<_>>().join("\n") }
        })
        .collect()
}

/// Puts in what the CI system would.
fn filled(text: &str, known: &Environment) -> String {
    let mut text = text.to_owned();
    for (name, value) in known {
        text = text.replace(&format!("${{{{ {name} }}}}"), value);
        text = text.replace(&format!("${name}"), value);
    }
    assert!(!text.contains("${{") && !text.starts_with('$'), "nothing gives {text}");
    text
}

/// A project whose pipeline writes secrets, and an operator who looks at what became of them.
pub struct Pipeline<'a> {
    operator: &'a Cli,
    /// Of the operator's `get`.
    reading: Vec<String>,
    ca: String,
    /// What both systems are told in their settings.
    settings: Environment,
}

impl<'a> Pipeline<'a> {
    /// For the store `default` of the account, whose `worker/web` reads what is bound; the pipeline has a token of its own for the store.
    /// `control` is the node that it asks; `reading` is what the operator's `get` takes besides.
    ///
    /// # Panics
    /// When the operator is refused.
    pub async fn new(operator: &'a Cli, (control, ca): (&str, &str), account: &str, reading: &[&str]) -> Self {
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let store = text(&operator.ok(&["--format", "json", "-a", account, "store", "show", "default"]).await.json()["id"]);
        let grant = format!("admin@{account}/{store}");
        let made = operator.ok(&["--format", "json", "token", "create", "ci", "--grant", &grant, "--expires-in", "1h"]).await.json();
        let token = text(&made["token"]);
        let settings = [
            ("CINNABAR_CONTROL", control),
            ("CINNABAR_CA", ca.trim_end()),
            ("CLOUDFLARE_ACCOUNT_ID", account),
            ("STORE_ID", &store),
            ("CLOUDFLARE_API_TOKEN", &token),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let reading = reading.iter().map(|word| (*word).to_owned()).collect();
        Self { operator, reading, ca: ca.to_owned(), settings }
    }

    /// The recipe of GitHub's, in this folder: it writes secrets, and the next time writes them again.
    ///
    /// # Panics
    /// When a step fails, or its values do not arrive.
    pub async fn github(&self, home: &Path) {
        let text = recipe("github-actions.yml");
        for round in ["1", "2"] {
            let mut known: Environment = [
                ("github.workspace".to_owned(), home.display().to_string()),
                ("token".to_owned(), self.settings["CLOUDFLARE_API_TOKEN"].clone()),
            ]
            .into();
            for (name, value) in &self.settings {
                let kind = if name == "CLOUDFLARE_API_TOKEN" { "secrets" } else { "vars" };
                known.insert(format!("{kind}.{name}"), value.clone());
            }
            known.insert("secrets.API_KEY_VALUE".into(), format!("{VALUE} {round}"));
            known.insert("secrets.DEV_VARS".into(), format!("# ours\nFIRST='{VALUE} {round}'\nSECOND=x"));
            for job in ["wrangler", "cinnabar"] {
                self.run(home, &github(&text, job), &Environment::new(), &known).await;
            }
            self.written(round).await;
        }
        assert!(!home.join(".cinnabar-ci").exists(), "the token is forgotten");
    }

    /// The recipe of GitLab's, likewise.
    ///
    /// # Panics
    /// As above.
    pub async fn gitlab(&self, home: &Path) {
        let text = recipe("gitlab-ci.yml");
        let (ca, vars) = (home.with_extension("ca"), home.with_extension("vars"));
        let shown = |path: &Path| path.display().to_string();
        fs::write(&ca, &self.ca).unwrap();
        for round in ["1", "2"] {
            fs::write(&vars, format!("FIRST='{VALUE} {round}'\nSECOND=x\n")).unwrap();
            // GitLab gives a job all variables of the project.
            let mut outer = self.settings.clone();
            let files = [("CINNABAR_CA_FILE", shown(&ca)), ("DEV_VARS_FILE", shown(&vars)), ("CI_PROJECT_DIR", shown(home))];
            outer.extend(files.map(|(name, value)| (name.to_owned(), value)));
            outer.insert("API_KEY_VALUE".into(), format!("{VALUE} {round}"));
            let mut known = outer.clone();
            known.insert("token".to_owned(), self.settings["CLOUDFLARE_API_TOKEN"].clone());
            // `$CINNABAR_CA` would be taken for the beginning of `$CINNABAR_CA_FILE`.
            known.remove("CINNABAR_CA");
            for job in ["wrangler", "cinnabar"] {
                self.run(home, &gitlab(&text, job), &outer, &known).await;
            }
            self.written(round).await;
        }
        assert!(!home.join(".cinnabar-ci").exists(), "the token is forgotten");
        fs::remove_file(&vars).unwrap();
    }

    /// The values of this round are there.
    async fn written(&self, round: &str) {
        for binding in ["API_KEY", "FIRST"] {
            self.operator.ok(&["bind", "worker/web", binding, "--wait"]).await;
            let reading = self.reading.iter().map(String::as_str);
            let get: Vec<&str> = ["get", "worker/web", binding, "--raw"].into_iter().chain(reading).collect();
            assert_eq!(self.operator.ok(&get).await.stdout, format!("{VALUE} {round}"), "{binding}");
            self.operator.ok(&["unbind", "worker/web", binding]).await;
        }
    }

    /// Runs the steps as a runner does, each in a shell that stops at the first command that fails.
    async fn run(&self, home: &Path, steps: &[Step], outer: &Environment, known: &Environment) {
        assert!(!steps.is_empty());
        let prelude = format!("npm() {{ [[ $* == ci ]]; }}\ncinnabar() {{ '{}' \"$@\"; }}\n", binary().display());
        for step in steps {
            let own = step.environment.iter().map(|(name, value)| (name.clone(), filled(value, known)));
            let environment: Environment = outer.clone().into_iter().chain(own).collect();
            let pairs: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let programs = Programs::new(home, &self.ca).with(&pairs);
            let run = programs.shell(&Wrangler::Old.call(), b"", &format!("{prelude}{}", step.script)).await;
            let said = format!("{}{}", run.stdout, run.stderr);
            assert_eq!(run.code, 0, "{}\n{said}", step.script);
            assert!(!said.contains(VALUE) && !said.contains(&known["token"]), "{}", step.script);
            assert!(!step.script.contains("${{"), "what is a setting comes by the environment, never as a part of a script");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_found_whole() {
        let text = "jobs:\n  a:\n    env:\n      A: \"1\"\n    steps:\n      - uses: x\n      - name: n\n        env:\n          B: 2\n        run: |\n          one \\\n            two\n          three\n\n      - run: no\n      - name: m\n        run: four\n  b:\n    steps:\n";
        let env =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Environment>();
        let steps = github(text, "a");
        assert_eq!(steps[0], Step { environment: env(&[("A", "1"), ("B", "2")]), script: "one \\\n  two\nthree\n".into() });
        assert_eq!(steps.last(), Some(&Step { environment: env(&[("A", "1")]), script: "four".into() }));
        let text = "a:\n  variables:\n    A: 1\n  script:\n    - one\n    # why\n    - |\n      two\n        three\n    - four\nb:\n";
        assert_eq!(gitlab(text, "a"), [Step { environment: env(&[("A", "1")]), script: "one\ntwo\n  three\nfour".into() }]);
    }
}
