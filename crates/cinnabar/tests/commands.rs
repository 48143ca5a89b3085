//! The binary as it is run: help, completion, usage errors and configuration, without a cluster.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn cinnabar(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cinnabar"));
    command.args(arguments).current_dir(folder).env("CINNABAR_CONFIG", folder.join("contexts.toml")).env_remove("CINNABAR_CONTEXT");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_names_the_way_in_and_the_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let output = cinnabar(folder.path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for word in ["cinnabar dev", "Exit codes", "secret", "status", "bench"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
}

#[test]
fn usage_errors_exit_2_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["no-such-noun"][..],
        &["secret", "create"],
        &["secret", "create", "default/A", "--value", "x"],
        &["config", "check", "absent.toml", "--role", "edge"],
    ] {
        let output = cinnabar(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn command_without_a_context_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = cinnabar(folder.path(), &["status"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("start `cinnabar dev`, or add one with `cinnabar context add`"), "{}", text(&output.stderr));
}

#[test]
fn completion_is_printed_for_every_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = cinnabar(folder.path(), &["completion", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("cinnabar"), "{shell}");
    }
}

#[test]
fn config_check_names_file_line_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let check = |content: &str| {
        fs::write(&file, content).unwrap();
        let output = cinnabar(folder.path(), &["config", "check", "edge.toml", "--role", "edge"]);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    assert_eq!(check("").0, Some(0));
    let (code, said) = check("[log]\nformat = \"json\"\nfiltre = \"info\"\n");
    assert_eq!(code, Some(2));
    assert!(said.contains("edge.toml:3:1") && said.contains("filtre"), "{said}");
    let (code, said) = check("[node]\nid = 0\nname = \"edge-7\"\ndata_dir = \"data\"\n");
    assert_eq!(code, Some(2));
    assert!(said.contains("node.id"), "{said}");
}

#[test]
fn config_show_prints_what_check_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.toml");
    fs::write(&file, "[node]\nid = 9\nname = \"control-9\"\ndata_dir = \"data\"\n").unwrap();
    let shown = cinnabar(folder.path(), &["config", "show", "control.toml", "--role", "control"]);
    assert!(shown.status.success());
    assert!(text(&shown.stdout).contains("name = \"control-9\""));
    fs::write(&file, &shown.stdout).unwrap();
    assert!(cinnabar(folder.path(), &["config", "check", "control.toml", "--role", "control"]).status.success());
}
