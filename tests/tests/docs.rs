//! The pages for operators say what the code does: every metric, every command, every option, every variable.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use clap::{Arg, Command, CommandFactory, Parser};

/// Read by tests alone.
const OF_TESTS: &str = "CINNABAR_REGENERATE";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root").to_owned()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap_or_else(|error| panic!("docs/{name}: {error}"))
}

/// The production code of all crates: each file up to its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders: Vec<PathBuf> = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path().join("src")).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
                files.push((path, production));
            }
        }
    }
    assert!(files.len() > 100, "the sources were not found");
    files
}

/// The words in `text` that start with `prefix` and go on with what `part` allows, each with the text before it.
fn words<'a>(text: &'a str, prefix: &'a str, part: fn(char) -> bool) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.match_indices(prefix).map(move |(at, _)| {
        let length = text[at..].find(|c| !part(c)).unwrap_or(text.len() - at);
        (&text[..at], &text[at..at + length])
    })
}

fn of_a_metric(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

/// Metrics that are recorded, with their types.
fn recorded() -> BTreeMap<String, &'static str> {
    let mut found = BTreeMap::new();
    for (path, text) in sources() {
        for (before, name) in words(&text, "cinnabar_", of_a_metric).filter(|(before, _)| before.ends_with('"')) {
            let call = before.trim_end_matches('"').trim_end().trim_end_matches('(').trim_end_matches('!');
            // An edge's status sets its gauges through two closures of these names.
            let kinds = [("counter", "counter"), ("histogram", "histogram"), ("gauge", "gauge"), ("flag", "gauge")];
            let kind = kinds.iter().find(|(end, _)| call.ends_with(end));
            let (_, kind) = kind.unwrap_or_else(|| panic!("{}: how is {name} recorded? teach it to this test", path.display()));
            let before = found.insert(name.to_owned(), *kind);
            assert!(before.is_none_or(|before| before == *kind), "{name} is of two types");
        }
    }
    found
}

#[test]
fn page_of_metrics_names_what_is_recorded_and_its_type() {
    let page = page("metrics.md");
    let mut shown = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `cinnabar_")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        // The table of alarms has three columns.
        if let [name, kind, _unit, _labels, _meaning] = cells[..] {
            assert!(shown.insert(name.to_owned(), kind).is_none(), "{name} stands there twice");
        }
    }
    assert_eq!(shown, recorded(), "left: docs/metrics.md, right: the sources");
    let alarms = words(&page, "cinnabar_", of_a_metric).map(|(_, name)| name).filter(|name| !shown.contains_key(*name));
    assert_eq!(alarms.collect::<Vec<_>>(), Vec::<&str>::new(), "named on the page, but recorded nowhere");
}

#[test]
fn metrics_end_in_their_unit() {
    for (name, kind) in recorded() {
        let unit = name.rsplit('_').next().unwrap_or_default();
        let good = match kind {
            "counter" => unit == "total",
            "histogram" => ["seconds", "bytes", "entries"].contains(&unit),
            _ => unit != "total",
        };
        assert!(good, "{name} is a {kind}");
    }
}

/// All commands that do something, with their full names.
fn leaves<'a>(command: &'a Command, name: &str, found: &mut Vec<(String, &'a Command)>) {
    let nouns: Vec<&Command> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
    if nouns.is_empty() {
        found.push((name.to_owned(), command));
    }
    for sub in nouns {
        leaves(sub, &format!("{name} {}", sub.get_name()), found);
    }
}

/// The page names `text`, and not only as the beginning of something longer.
fn names(page: &str, text: &str) -> bool {
    page.match_indices(text).any(|(at, _)| !page[at + text.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
}

#[test]
fn page_of_the_command_line_names_every_command_option_and_variable() {
    let page = page("cli.md");
    let grammar = cli::Cli::command();
    let mut commands = Vec::new();
    leaves(&grammar, "cinnabar", &mut commands);
    assert!(commands.len() > 40, "{}", commands.len());
    let mut missing = BTreeSet::new();
    let mut want = |text: String| {
        if !names(&page, &text) {
            missing.insert(text);
        }
    };
    let mut options = |arguments: &mut dyn Iterator<Item = &Arg>| {
        for argument in arguments {
            if let Some(long) = argument.get_long() {
                want(format!("--{long}"));
            }
            if let Some(variable) = argument.get_env() {
                want(variable.to_string_lossy().into_owned());
            }
        }
    };
    options(&mut grammar.get_arguments());
    for (_, command) in commands.iter().filter(|(name, _)| !name.starts_with("cinnabar bench")) {
        options(&mut command.get_arguments());
    }
    for (name, _) in &commands {
        want(name.clone());
    }
    for (_, text) in sources() {
        for (_, name) in words(&text, "\"CINNABAR_", |c| c == '"' || c == '_' || c.is_ascii_uppercase()) {
            want(name.trim_matches('"').to_owned());
        }
    }
    missing.remove(OF_TESTS);
    assert_eq!(missing, BTreeSet::new(), "not in docs/cli.md");
}

#[test]
fn page_of_the_command_line_has_rows_of_commands_that_exist_and_no_others() {
    let grammar = cli::Cli::command();
    let mut commands = Vec::new();
    leaves(&grammar, "cinnabar", &mut commands);
    let known: BTreeSet<&str> = commands.iter().map(|(name, _)| name.as_str()).collect();
    let page = page("cli.md");
    let named = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    // A row may name options after the command.
    let rows: Vec<String> = named
        .filter(|name| name.starts_with("cinnabar "))
        .map(|name| name.split_whitespace().take_while(|word| !word.starts_with('-')).collect::<Vec<_>>().join(" "))
        .collect();
    let unknown: Vec<_> = rows.iter().filter(|row| !known.contains(row.as_str()) && row.as_str() != "cinnabar cluster level").collect();
    assert!(unknown.is_empty(), "docs/cli.md has rows of commands that do not exist: {unknown:?}");
    let rows: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    let without: Vec<_> = known.difference(&rows).collect();
    assert!(without.is_empty(), "commands without a row in docs/cli.md: {without:?}");
}

/// What is pasted as typed: lines of examples that begin with a prompt, up to a pipe or a file.
fn typed(page: &str) -> impl Iterator<Item = &str> {
    let prompts = page.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
    let ours = prompts.filter_map(|line| line.split_once("cinnabar ").filter(|(before, _)| !before.contains("--")).map(|(_, rest)| rest));
    ours.map(|rest| rest.split(['|', '<', '>', '#']).next().unwrap_or_default())
}

#[test]
fn pages_show_only_commands_that_are_understood() {
    let mut seen = 0;
    for name in ["cli.md", "lookups.md", "operating.md"] {
        for line in typed(&page(name)) {
            let words = std::iter::once("cinnabar").chain(line.split_whitespace());
            let parsed = cli::Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "docs/{name} shows `cinnabar {line}`: {}", parsed.unwrap_err());
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}
